"""A backup is the database and the files that it names; a restore is checked before it takes effect."""

import os
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.errors import Conflict
from models.files import sha256_of
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Store, artifacts, experiments, registry, runs, webhooks
from models.store.states import ArtifactKind, Status, WeightsChoice
from models.webhooks import CHOICES
from service.cli.main import app

FILE = "1/attempt-1/weights-best.safetensors"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A data directory with one running experiment and one artifact, and a file that no row names."""
    settings = Settings(data_dir=tmp_path / "lab")
    store = Store(settings)
    store.migrate()
    file = settings.experiments_dir / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    (file.parent / "forgotten.bin").write_bytes(b"pruned")
    with store.writing() as session:
        row = experiments.create(session, parse_spec({"model": "baseline"}), layers=[], warnings=[])
        claim = runs.claim(session, row.id, "worker", max_attempts=3)
        assert claim is not None
        artifacts.record(session, claim, ArtifactKind.WEIGHTS_BEST, 0, FILE, sha256_of(file), 7)
    store.dispose()
    return settings.data_dir


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_what_was_backed_up_is_restored(lab: Path, tmp_path: Path) -> None:
    archive, copy = tmp_path / "backup.tar", tmp_path / "copy"
    assert run("backup", str(archive), "--data-dir", str(lab))[0] == 0
    with tarfile.open(archive) as opened:
        assert "experiments/1/attempt-1/forgotten.bin" not in opened.getnames()
    assert run("restore", str(archive), "--data-dir", str(copy))[0] == 0
    assert (copy / "experiments" / FILE).read_bytes() == b"weights"
    store = Store(Settings(data_dir=copy))
    with store.reading() as session:
        assert experiments.get(session, 1).model == "baseline"
    store.dispose()


def test_models_and_their_versions_come_back(lab: Path, tmp_path: Path) -> None:
    archive, copy = tmp_path / "backup.tar", tmp_path / "copy"
    store = Store(Settings(data_dir=lab))
    with store.writing() as session:
        for _ in range(3):
            registry.add_version(
                session,
                "cats",
                experiment_id=1,
                weights=WeightsChoice.BEST,
                epoch=None,
                sha256=sha256_of(lab / "experiments" / FILE),
                owner=None,
            )
        registry.rollback(session, "cats")
    store.dispose()
    assert run("backup", str(archive), "--data-dir", str(lab))[0] == 0
    assert run("restore", str(archive), "--data-dir", str(copy))[0] == 0
    store = Store(Settings(data_dir=copy))
    with store.reading() as session:
        assert registry.usable_versions(session, "cats") == [2, 1]
        assert registry.current(session, "cats").experiment_id == 1
    with store.writing() as session:
        runs.settle(session, runs.running(session)[0], Status.FAILED)
        with pytest.raises(Conflict, match="cannot be deleted"):
            experiments.delete(session, 1)
    store.dispose()


def test_a_restored_copy_tells_nobody_of_its_experiments(lab: Path, tmp_path: Path) -> None:
    archive, copy = tmp_path / "backup.tar", tmp_path / "copy"
    store = Store(Settings(data_dir=lab))
    with store.writing() as session:
        webhooks.create(session, url="https://hooks.example/", name="", events=CHOICES, owner=None)
        webhooks.announce_test(session, 1)
    store.dispose()
    assert run("backup", str(archive), "--data-dir", str(lab))[0] == 0
    assert run("restore", str(archive), "--data-dir", str(copy))[0] == 0
    store = Store(Settings(data_dir=copy))
    with store.writing() as session:
        assert webhooks.get(session, 1).reason == "restored from a backup"
        runs.settle(session, runs.running(session)[0], Status.FAILED)
        assert [row.status for row in webhooks.list_deliveries(session, 1, before=None, limit=9)[0]] == ["failed"]
    store.dispose()


def test_a_backup_whose_file_does_not_match_its_digest_is_not_restored(lab: Path, tmp_path: Path) -> None:
    archive, copy = tmp_path / "backup.tar", tmp_path / "copy"
    assert run("backup", str(archive), "--data-dir", str(lab))[0] == 0
    data = archive.read_bytes()
    archive.write_bytes(data.replace(b"weights\0", b"weightz\0", 1))
    code, output = run("restore", str(archive), "--data-dir", str(copy))
    assert code == 1
    assert "digest" in output
    assert not (copy / "epochal.db").exists()


def test_a_damaged_artifact_is_not_backed_up_as_if_it_were_whole(lab: Path, tmp_path: Path) -> None:
    (lab / "experiments" / FILE).write_bytes(b"weightz")
    code, output = run("backup", str(tmp_path / "backup.tar"), "--data-dir", str(lab))
    assert code == 1
    assert "damaged" in output
    assert not (tmp_path / "backup.tar").exists()


def test_a_restore_does_not_overwrite_a_lab(lab: Path, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    assert run("backup", str(archive), "--data-dir", str(lab))[0] == 0
    code, output = run("restore", str(archive), "--data-dir", str(lab))
    assert code == 1
    assert "holds a lab already" in output


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "experiments/../../outside", "other.txt"])
def test_an_archive_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "backup.tar"
    with tarfile.open(archive, "w") as opened:
        opened.addfile(tarfile.TarInfo(name))
    code, output = run("restore", str(archive), "--data-dir", str(tmp_path / "copy"))
    assert code == 1
    assert "no backup has" in output


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a tar")
    assert run("restore", str(tmp_path / "text"), "--data-dir", str(tmp_path / "copy"))[0] == 1
    assert run("restore", str(tmp_path / "nothing"), "--data-dir", str(tmp_path / "copy"))[0] == 1
    assert run("backup", str(tmp_path / "b.tar"), "--data-dir", str(tmp_path / "empty"))[0] == 1


def test_a_backup_and_what_is_restored_are_their_users_alone(lab: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        archive, copy = tmp_path / "backup.tar", tmp_path / "copy"
        copy.mkdir()
        assert run("backup", str(archive), "--data-dir", str(lab))[0] == 0
        assert run("restore", str(archive), "--data-dir", str(copy))[0] == 0
    finally:
        os.umask(before)
    assert [path for path in (archive, copy, *copy.rglob("*")) if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("name", ["what?q", "p%2Fct#", "a b", "x" * 200, "研究"])
def test_a_lab_in_a_folder_of_any_name_is_backed_up_and_restored(lab: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    lab.rename(place)
    archive, copy = tmp_path / f"{name}out" / f"{name}.tar", tmp_path / f"{name}copy"
    assert run("backup", str(archive), "--data-dir", str(place))[0] == 0
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert run("restore", str(archive), "--data-dir", str(copy))[0] == 0
    assert (copy / "experiments" / FILE).read_bytes() == b"weights"


@pytest.mark.parametrize(
    "command",
    [
        "backup . --data-dir {lab}",
        "backup /dev/null --data-dir {lab}",
        "backup /proc/x/y.tar --data-dir {lab}",
        "backup file/b.tar --data-dir {lab}",
        "backup b.tar --data-dir file",
        "backup b.tar --data-dir /proc/x",
        "restore . --data-dir copy",
        "restore file --data-dir /proc/x",
        "restore file --data-dir file",
        "restore file --data-dir file/below",
        "keys list --data-dir file",
        "keys list --data-dir /proc/x",
        "keys create ada --data-dir /dev/null",
        "up --port 0 --data-dir file",
        "up --port 0 --data-dir /proc/x",
        "demo --folder file",
        "submit . --url http://127.0.0.1:1",
        "curves 1 -o /proc/x/y.png --url http://127.0.0.1:1",
    ],
)
def test_a_path_that_cannot_be_used_is_one_message(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, command.format(lab=lab).split())
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    after = [path for path in sorted(tmp_path.rglob("*")) if not path.name.startswith("epochal.db-")]
    assert after == before
    assert Path("/dev/null").is_char_device()
