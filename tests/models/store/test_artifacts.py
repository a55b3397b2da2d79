from pathlib import Path

import pytest

from models.store import Store, artifacts
from models.store.states import ArtifactKind
from tests.models.store.helpers import start


def test_a_file_is_found_by_kind_and_epoch(store: Store, tmp_path: Path) -> None:
    claimed = start(store)
    with store.writing() as session:
        artifacts.record(session, claimed, ArtifactKind.WEIGHTS_BEST, 0, "1/attempt-1/w", "a" * 64, 10)
        for epoch in (2, 10, 1):
            artifacts.record(session, claimed, ArtifactKind.CHECKPOINT, epoch, f"1/attempt-1/c{epoch}", "b" * 64, 20)
    with store.reading() as session:
        found = artifacts.newest(session, 1, ArtifactKind.WEIGHTS_BEST)
        assert found is not None
        assert (found.sha256, found.num_bytes, found.attempt) == ("a" * 64, 10, 1)
        assert found.file(tmp_path) == tmp_path / "1" / "attempt-1" / "w"
        assert artifacts.newest(session, 1, ArtifactKind.KERNELS) is None
        assert [record.epoch for record in artifacts.checkpoints(session, 1)] == [10, 2, 1]
        newest = artifacts.newest(session, 1, ArtifactKind.CHECKPOINT)
        assert newest is not None
        assert newest.epoch == 10
        assert len(artifacts.list_for(session, 1)) == 4
        assert artifacts.list_for(session, 2) == []


def test_a_new_file_takes_the_place_of_the_old_one_and_names_it(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        assert artifacts.record(session, claimed, ArtifactKind.WEIGHTS_LAST, 0, "1/a", "a" * 64, 1) is None
        assert artifacts.record(session, claimed, ArtifactKind.WEIGHTS_LAST, 0, "1/a", "b" * 64, 2) is None
        old = artifacts.record(session, claimed, ArtifactKind.WEIGHTS_LAST, 0, "1/b", "c" * 64, 3)
        assert old is not None
        assert (old.path, old.sha256) == ("1/a", "b" * 64)
        assert [record.path for record in artifacts.list_for(session, 1)] == ["1/b"]


def test_old_checkpoints_are_forgotten(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        for epoch in range(1, 6):
            artifacts.record(session, claimed, ArtifactKind.CHECKPOINT, epoch, f"1/c{epoch}", "b" * 64, 20)
        dropped = artifacts.forget(session, claimed, ArtifactKind.CHECKPOINT, keep=2)
        assert [record.epoch for record in dropped] == [3, 2, 1]
        assert [record.epoch for record in artifacts.checkpoints(session, 1)] == [5, 4]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "1/../../x", "2/attempt-1/x", "1", "", "1/.x", "1\\x", "1/a\0"]
)
def test_a_path_out_of_the_experiments_folder_is_refused(store: Store, path: str) -> None:
    claimed = start(store)
    with pytest.raises(ValueError, match="leads out"), store.writing() as session:
        artifacts.record(session, claimed, ArtifactKind.KERNELS, 0, path, "a" * 64, 1)


def test_removing_a_folder_twice_is_as_good_as_once(tmp_path: Path) -> None:
    (tmp_path / "7" / "attempt-1").mkdir(parents=True)
    (tmp_path / "7" / "attempt-1" / "weights").write_bytes(b"x")
    (tmp_path / "8").mkdir()
    for _ in range(2):
        artifacts.remove_folder(tmp_path, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["8"]
