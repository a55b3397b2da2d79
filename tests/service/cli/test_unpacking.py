"""A backup may come from anybody. What is not what a backup holds is refused in one line, before it costs disk, and
nothing outside the data directory is read, written or removed on its account.
"""

import io
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from typer.testing import CliRunner

from models.files import sha256_of
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import artifacts, experiments, runs
from models.store.states import ArtifactKind
from service.cli.main import app
from tests.stores import new_store

FILE = "1/attempt-1/weights-best.safetensors"
MEMBER = f"experiments/{FILE}"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a sound backup of one experiment with one artifact holds."""
    folder = tmp_path_factory.mktemp("sound")
    lab = Settings(data_dir=folder / "lab")
    store = new_store(lab)
    file = lab.experiments_dir / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    with store.writing() as session:
        row = experiments.create(session, parse_spec({"model": "baseline"}), layers=[], warnings=[])
        claim = runs.claim(session, row.id, "worker", max_attempts=3)
        assert claim is not None
        artifacts.record(session, claim, ArtifactKind.WEIGHTS_BEST, 0, FILE, sha256_of(file), 7)
    store.backup(folder / "epochal.db")
    store.dispose()
    return {"epochal.db": (folder / "epochal.db").read_bytes(), MEMBER: b"weights"}


@pytest.fixture
def archive(contents: dict[str, bytes], tmp_path: Path) -> Path:
    return write(tmp_path / "backup.tar", contents)


def write(path: Path, contents: dict[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as opened:
        for name, data in contents.items():
            opened.addfile(member(name, size=len(data)), io.BytesIO(data))
        for extra, data in more:
            opened.addfile(extra, io.BytesIO(data))
    return path


def member(name: str, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(found, field, value)
    return found


def refused(archive: Path, tmp_path: Path) -> str:
    """Restore, which must fail in one line and leave no lab and no file; what it said."""
    target = tmp_path / "copy"
    code, output = run("restore", str(archive), "--data-dir", str(target))
    assert code == 1
    assert len(output.strip().splitlines()) <= 3  # title, detail and what to do
    assert {path.name for path in target.rglob("*")} <= {"lab.lock"}
    return " ".join(output.split())


def test_the_sound_backup_of_these_tests_is_restored(archive: Path, tmp_path: Path) -> None:
    code, output = run("restore", str(archive), "--data-dir", str(tmp_path / "copy"))
    assert code == 0, output
    assert (tmp_path / "copy" / "experiments" / FILE).read_bytes() == b"weights"


SPARSE = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": MEMBER,
    "GNU.sparse.realsize": str(1 << 40),
}
MEMBERS: dict[str, tuple[tarfile.TarInfo, bytes]] = {
    "a name of 300 characters": (member("experiments/1/attempt-1/" + "n" * 300), b""),
    "a folder's name of 300 characters": (member("experiments/" + "1" * 300, type=tarfile.DIRTYPE), b""),
    "a symbolic link": (member("experiments/1/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
    "a hard link": (member("experiments/1/link", type=tarfile.LNKTYPE, linkname="epochal.db"), b""),
    "a device": (member("experiments/1/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    "a pipe": (member("experiments/1/pipe", type=tarfile.FIFOTYPE), b""),
    "a sparse file of GNU tar": (member("experiments/1/w", type=tarfile.GNUTYPE_SPARSE), b""),
    "a sparse file of pax": (member("experiments/1/w", pax_headers=SPARSE, size=512), b"1\n0\n1\n".ljust(512, b"\0")),
    "a contiguous file": (member("experiments/1/w", type=tarfile.CONTTYPE), b""),
    "a file twice": (member(MEMBER, size=7), b"weights"),
    "the database twice": (member("epochal.db", size=1), b"x"),
    "a log of the database": (member("epochal.db-wal", size=1), b"x"),
    "a file that no row names": (member("experiments/1/attempt-1/more", size=4), b"more"),
    "a backslash": (member("experiments/1\\..\\x", size=1), b"x"),
    "a NUL in a name": (member("experiments/1/x", pax_headers={"path": "experiments/1/x\0y"}, size=1), b"x"),
    "a name with a line end": (member("experiments/1/x\ny", size=1), b"x"),
    "a path with dots": (member("experiments/1/../../../x", size=1), b"x"),
    "an absolute path": (member("/experiments/1/x", size=1), b"x"),
    "a path that begins with a dot": (member("./experiments/1/x", size=1), b"x"),
    "the folder itself as a file": (member("experiments", size=1), b"x"),
    "another alphabet's digits": (member("experiments/\u0661/x", size=1), b"x"),
    "a folder with contents": (member("experiments/2", type=tarfile.DIRTYPE, size=512), b"\0" * 512),
}


@pytest.mark.parametrize("what", MEMBERS)
def test_an_archive_with_anything_else_is_refused(what: str, contents: dict[str, bytes], tmp_path: Path) -> None:
    said = refused(write(tmp_path / "backup.tar", contents, MEMBERS[what]), tmp_path)
    assert "which no backup has" in said or "twice" in said or "does not name" in said or "not a whole" in said


@pytest.mark.parametrize("size", [1 << 40, 8**11 - 1, (1 << 63) - 1, -1, -512, -(1 << 40)])
def test_a_size_that_is_not_there_is_refused_before_it_costs_disk(
    size: int, contents: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "backup.tar"
    head = member("experiments/1/attempt-1/w", size=size).tobuf(tarfile.GNU_FORMAT)
    sound = write(path, contents).read_bytes()
    path.write_bytes(sound[: sound.rindex(b"weights") + 512] + head)
    refused(path, tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1, -512])
def test_a_head_that_claims_gigabytes_costs_no_memory(kind: bytes, size: int, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    path.write_bytes(member("x", type=kind, size=size).tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    refused(path, tmp_path)


def test_a_thousand_heads_inside_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    path.write_bytes((member("x", type=tarfile.GNUTYPE_LONGNAME, size=2).tobuf() + b"x\0".ljust(512, b"\0")) * 3000)
    refused(path, tmp_path)


def test_too_many_members_are_refused(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.unpacking.MAX_MEMBERS", 50)
    more = [(member(f"experiments/1/attempt-1/f{number}"), b"") for number in range(60)]
    assert "more than 50" in refused(write(tmp_path / "backup.tar", contents, *more), tmp_path)


def test_what_does_not_fit_the_disk_is_refused_before_it_is_unpacked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5, 5))
    assert "are free" in refused(archive, tmp_path)


PATHS = [
    "/etc/passwd", "../outside", "1/../../outside", "1/attempt-1/../../../outside", "", ".", "1", "1/", "1//x", "1/./x",
    "2/attempt-1/of-another-experiment", "1\\..\\..\\outside", "1/attempt-1/a\nb", "1/attempt-1/.hidden",
    "1/" + "n" * 300, "1/a/b/c/d", "C:/x", "~/x", "1/attempt-1/\u202e",
]  # fmt: skip


def changed(contents: dict[str, bytes], path: Path, *statements: str) -> dict[str, bytes]:
    """The same with a database that was written to by hand."""
    path.write_bytes(contents["epochal.db"])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for statement in statements:
            connection.execute(statement)
    return {**contents, "epochal.db": path.read_bytes()}


@pytest.mark.parametrize("place", PATHS)
def test_a_record_that_leads_anywhere_else_is_refused(place: str, contents: dict[str, bytes], tmp_path: Path) -> None:
    text = place.replace("'", "''")
    hostile = changed(contents, tmp_path / "db", f"UPDATE artifacts SET path = '{text}'")
    outside = tmp_path / "outside"
    outside.write_text("still here")
    refused(write(tmp_path / "backup.tar", hostile), tmp_path)
    assert outside.read_text() == "still here"


STATEMENTS: dict[str, tuple[str, ...]] = {
    "a trigger": ("CREATE TRIGGER t AFTER UPDATE ON experiments BEGIN DELETE FROM api_keys; END",),
    "a view": ("CREATE VIEW v AS SELECT 1",),
    "a view in place of a table": ("DROP TABLE workers", "CREATE VIEW workers AS SELECT 1 AS name"),
    "another table": ("CREATE TABLE more (x)",),
    "a missing table": ("DROP TABLE probes",),
    "a missing index": ("DROP INDEX ix_runs_status",),
    "an index that computes": ("CREATE INDEX i ON experiments (abs(id))",),
    "another column": ("ALTER TABLE workers ADD COLUMN more TEXT DEFAULT 'x'",),
    "a virtual table": ("CREATE VIRTUAL TABLE more USING fts5(x)",),
    "another version": ("UPDATE alembic_version SET version_num = '9999'",),
    "a version that is a path": ("UPDATE alembic_version SET version_num = '../../x'",),
    "a version that is a range": ("UPDATE alembic_version SET version_num = 'base:head'",),
    "no version": ("DELETE FROM alembic_version",),
    "two versions": ("INSERT INTO alembic_version SELECT '0000'",),
    "a status that there is not": ("UPDATE experiments SET status = 'evil'",),
    "a number that is text": ("UPDATE experiments SET revision = 'x'",),
    "a time that is none": ("UPDATE experiments SET created_at = 'yesterday'",),
    "JSON that is none": ("UPDATE experiments SET spec = '{'",),
    "a spec that is none": ("UPDATE experiments SET spec = '{}'",),
    "a blob": ("UPDATE experiments SET name = x'ff'",),
    "a row that belongs to nothing": ("PRAGMA foreign_keys = OFF", "UPDATE runs SET experiment_id = 77"),
    "another size": ("UPDATE artifacts SET num_bytes = 6",),
    "another digest": ("UPDATE artifacts SET sha256 = replace(sha256, substr(sha256, 1, 4), 'ffff')",),
    "an artifact more": (
        "INSERT INTO artifacts SELECT experiment_id, 'kernels', 0, 1, path || 2, sha256, 7, created_at FROM artifacts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STATEMENTS)
def test_a_database_that_is_not_a_labs_is_refused(what: str, contents: dict[str, bytes], tmp_path: Path) -> None:
    hostile = changed(contents, tmp_path / "db", *STATEMENTS[what])
    refused(write(tmp_path / "backup.tar", hostile), tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"SQLite format 3\0", b"no database" * 1000, b"SQLite format 3\0" + bytes(99_999)]
)
def test_a_database_that_is_no_database_is_refused(data: bytes, contents: dict[str, bytes], tmp_path: Path) -> None:
    refused(write(tmp_path / "backup.tar", {**contents, "epochal.db": data}), tmp_path)


def test_a_restore_says_whom_the_restored_keys_let_in(contents: dict[str, bytes], tmp_path: Path) -> None:
    key = (
        "INSERT INTO api_keys (name, role, key_sha256, created_at, revoked_at) VALUES ('{}', 'submitter', '{}', {}, {})"
    )
    moment = "'2026-01-01 00:00:00.000000'"
    known = changed(
        contents,
        tmp_path / "db",
        key.format("mallory", "0" * 64, moment, "NULL"),
        key.format("eve", 64 * "1", *[moment] * 2),
    )
    archive = write(tmp_path / "backup.tar", known)
    code, output = run("restore", str(archive), "--data-dir", str(tmp_path / "copy"))
    assert code == 0
    assert "mallory" in output
    assert "eve" not in output


def test_a_log_that_lies_in_the_folder_is_not_read_as_the_databases_own(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "epochal.db-wal").write_bytes(b"x")
    code, output = run("restore", str(archive), "--data-dir", str(tmp_path / "copy"))
    assert code == 1
    assert "already holds a lab" in output


@pytest.mark.parametrize("place", ["../../outside", "/outside", "2/attempt-1/of-another"])
def test_a_backup_does_not_follow_a_record_that_leads_out(
    place: str, contents: dict[str, bytes], tmp_path: Path
) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    changed(contents, lab / "epochal.db", f"UPDATE artifacts SET path = '{place}'")
    code, output = run("backup", str(tmp_path / "backup.tar"), "--data-dir", str(lab))
    assert code == 1
    assert "leads out" in output
    assert not (tmp_path / "backup.tar").exists()


bytes_at = strategies.tuples(strategies.integers(0, 1 << 20), strategies.binary(min_size=1, max_size=16))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=strategies.lists(bytes_at, min_size=1, max_size=4), cut=strategies.integers(0, 4096))
def test_whatever_is_changed_in_a_backup_it_is_restored_whole_or_refused(
    changes: list[tuple[int, bytes]],
    cut: int,
    contents: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    data = bytearray(write(folder / "backup.tar", contents).read_bytes())
    for place, piece in changes:
        # A third of the changes falls on heads, where most of the rules are.
        start = place % len(data) if place % 3 else (0, data.rindex(b"weights") - 512)[place % 2] + place % 512
        data[start : start + len(piece)] = piece
    (folder / "backup.tar").write_bytes(data[: len(data) - cut])
    code, output = run("restore", str(folder / "backup.tar"), "--data-dir", str(folder / "copy"))
    assert code in (0, 1), output
    assert {path.name for path in folder.iterdir()} <= {"backup.tar", "copy"}
    there = {path.name for path in (folder / "copy").iterdir()} - {"lab.lock"}
    assert there == ({"experiments", "epochal.db"} if code == 0 else set())
    if code == 0:
        assert (folder / "copy" / "experiments" / FILE).read_bytes() == b"weights"
    shutil.rmtree(folder)


names = strategies.text(min_size=0, max_size=40) | strategies.lists(
    strategies.sampled_from(["experiments", "1", "attempt-1", "..", ".", "", "/", "\\", "w", "epochal.db"]), max_size=6
).map("/".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names, kind=strategies.sampled_from([*b"01234567SLKxgV\0"]), size=strategies.integers(0, 2000))
def test_whatever_is_added_to_a_backup_it_is_refused(
    name: str, kind: int, size: int, contents: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("added")
    extra = member(name.encode("utf-8", "replace").decode(), type=bytes([kind]), size=size)
    try:
        write(folder / "backup.tar", contents, (extra, b"x" * size))
    except (ValueError, UnicodeError):  # the tarfile module itself does not write it
        return
    code, _ = run("restore", str(folder / "backup.tar"), "--data-dir", str(folder / "copy"))
    there = {path.name for path in (folder / "copy").iterdir()} - {"lab.lock"}
    assert (code, there) in ((1, set()), (0, {"experiments", "epochal.db"}))
    found = {path.name for path in folder.rglob("*") if path.is_file()} - {"lab.lock", "backup.tar"}
    assert found <= {"epochal.db", "weights-best.safetensors"}
    shutil.rmtree(folder)
