"""What a worker removes is inside the data directory, whatever the database or a link in a folder says."""

from pathlib import Path

import pytest

from models.errors import CorruptFile
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from worker.folders import attempt_folder, remove_files, remove_folder, sweep

OUT = ["../outside/stored-w", "1/../../outside/stored-w", "2/attempt-1/stored-w", "", "1", "1/attempt-1/link/../x"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of experiments, with a file of experiment 2 in it and one outside."""
    for place in ("outside", "experiments/1/attempt-1", "experiments/2/attempt-1"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "stored-w").write_bytes(b"kept")
        (tmp_path / place / ".w.partial").write_bytes(b"kept")
    return tmp_path / "experiments"


def record(path: str, experiment_id: int = 1) -> ArtifactRecord:
    return ArtifactRecord(experiment_id, ArtifactKind.CHECKPOINT, 1, 1, path, "0" * 64, 4)


@pytest.mark.parametrize("place", [*OUT, "ABSOLUTE"])
def test_a_record_that_leads_out_removes_nothing(place: str, root: Path) -> None:
    outside = root.parent / "outside"
    path = str(outside / "stored-w") if place == "ABSOLUTE" else place
    remove_files(root, [record(path)])
    assert (outside / "stored-w").exists()
    assert (root / "2/attempt-1/stored-w").exists()
    with pytest.raises(CorruptFile, match="leads out"):
        record(path).file(root)


def test_a_record_that_leads_out_through_a_link_removes_and_reads_nothing(root: Path) -> None:
    (root / "1/attempt-2").symlink_to(root.parent / "outside")
    remove_files(root, [record("1/attempt-2/stored-w")])
    assert (root.parent / "outside/stored-w").exists()
    with pytest.raises(CorruptFile, match="link"):
        record("1/attempt-2/stored-w").file(root)


def test_a_folder_of_experiments_that_is_itself_a_link_is_the_data_directory(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    assert record("1/attempt-1/stored-w").file(root.parent / "link").read_bytes() == b"kept"


def test_a_sweep_does_not_follow_links(root: Path) -> None:
    outside = root.parent / "outside"
    (root / "1/attempt-7").symlink_to(outside)
    (root / "3").symlink_to(outside.parent)
    sweep(root, 1, [record("../outside/stored-w")], attempt=2)
    with pytest.raises(CorruptFile):
        sweep(root, 3, [], attempt=2)
    remove_folder(root, 3)
    assert sorted(path.name for path in outside.iterdir()) == [".w.partial", "stored-w"]
    assert not (root / "1/attempt-7").is_symlink()
    assert not (root / "3").is_symlink()


def test_a_run_does_not_write_through_a_link(root: Path) -> None:
    (root / "3").symlink_to(root.parent / "outside")
    with pytest.raises(CorruptFile, match="link"):
        attempt_folder(root, 3, 1)
