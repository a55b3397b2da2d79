"""A backup is the database and the files that it names; a restore is checked before it takes effect."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.data.dataset import load_folder
from models.data.uploaded import open_dataset
from models.errors import Conflict
from models.files import sha256_of
from models.settings import Settings
from models.spec.data import DatasetSpec
from models.spec.parse import parse_spec
from models.store import Store, artifacts, datasets, experiments, registry, runs, webhooks
from models.store.states import ArtifactKind, DatasetJobKind, Status, WeightsChoice
from models.uploads import new_archive
from models.webhooks import CHOICES
from service.cli.main import app
from tests.service.datasets.photos import do_jobs, photos, picture
from tests.service.lab_of_one import Filled
from tests.stores import new_store

FILE = "1/attempt-1/weights-best.safetensors"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A data directory with one running experiment and one artifact, and a file that no row names."""
    settings = Settings(data_dir=tmp_path / "lab")
    store = new_store(settings)
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


@pytest.fixture(scope="module")
def photo_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with two versions of a dataset, one of groups and held-out images."""
    filled = Filled(Settings(data_dir=tmp_path_factory.mktemp("photo-lab")))
    given = {
        f"{split}/{name}/{n}.png": picture(10 * n + len(name), 8)
        for n in range(3)
        for split in ("train", "val")
        for name in ("cat", "horse")
    }
    for body, options in ((photos({"cat": 4, "dog": 4}), {}), (photos({}, also=given), {"group": "([0-9])[.]png"})):
        archive = new_archive(filled.settings.uploads_dir)
        archive.write_bytes(body)
        with filled.store.writing() as session:
            datasets.create_version(
                session,
                "photos",
                owner=None,
                options={},
                job=DatasetJobKind.IMPORT,
                job_options={"archive": archive.name, "import": options},
            )
        do_jobs(filled)
    filled.store.dispose()
    return filled.settings.data_dir


def test_the_images_of_datasets_are_included_if_asked_for_and_can_be_trained_on_again(
    photo_lab: Path, tmp_path: Path
) -> None:
    without, whole, copy = tmp_path / "without.tar", tmp_path / "whole.tar", tmp_path / "copy"
    code, output = run("backup", str(without), "--data-dir", str(photo_lab))
    assert code == 0
    assert "not included: the images of photos" in output
    assert "--with-datasets" in output
    code, output = run("backup", str(whole), "--with-datasets", "--data-dir", str(photo_lab))
    assert code == 0
    assert "and the images of photos" in output
    code, output = run("restore", str(whole), "--data-dir", str(copy))
    assert code == 0, output
    assert "2 versions of uploaded datasets" in output
    settings = Settings(data_dir=copy)
    for version in (1, 2):
        before = load_folder(photo_lab / "datasets" / "photos" / str(version))
        spec = DatasetSpec(name="photos", fingerprint=before.fingerprint)
        restored = open_dataset(spec, settings)
        assert (restored.train_images == before.train_images).all()
        assert restored.info == before.info
        assert (restored.validation is None) == (before.validation is None)
    assert run("restore", str(without), "--data-dir", str(tmp_path / "bare"))[0] == 0


def rewritten(archive: Path, target: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> Path:
    """A backup with members renamed, changed or (None) left out."""
    with tarfile.open(archive) as source, tarfile.open(target, "w") as copy:
        for member in source:
            file = source.extractfile(member)
            changed = change(member.name, b"" if file is None else file.read())
            if changed is not None:
                member.name, data = changed
                member.size = len(data)
                copy.addfile(member, io.BytesIO(data))
    return target


CHANGES: dict[str, tuple[str, Callable[[str, bytes], tuple[str, bytes] | None]]] = {
    "another image": (
        "by their fingerprint",
        lambda name, data: (name, data[:-1] + b"\1" if name.endswith("1/train_images.npy") else data),
    ),
    "other held-out images": (
        "by their fingerprint",
        lambda name, data: (name, data[:-3] + b"\0\0\0" if name.endswith("2/validation.npy") else data),
    ),
    "a file is missing": (
        "not a complete dataset",
        lambda name, data: None if name.endswith("test_labels.npy") else (name, data),
    ),
    "a version that there is not": (
        "which its database does not name",
        lambda name, data: (name.replace("photos/2/", "photos/3/"), data),
    ),
    "a file that no version has": (
        "which no backup has",
        lambda name, data: (name.replace("files.jsonl", "x.py"), data),
    ),
    "a description of something else": (
        "not a complete dataset",
        lambda name, data: (name, b"[]" if name.endswith("dataset.json") else data),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_images_that_are_not_what_the_database_says_are_not_restored(
    photo_lab: Path, tmp_path: Path, what: str
) -> None:
    said, change = CHANGES[what]
    assert run("backup", str(tmp_path / "whole.tar"), "--with-datasets", "--data-dir", str(photo_lab))[0] == 0
    archive = rewritten(tmp_path / "whole.tar", tmp_path / "changed.tar", change)
    code, output = run("restore", str(archive), "--data-dir", str(tmp_path / "copy"))
    assert code == 1
    assert said in " ".join(output.split())
    assert not (tmp_path / "copy" / "epochal.db").exists()
    assert not (tmp_path / "copy" / "datasets").exists()


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
    assert "already holds a lab" in output


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
