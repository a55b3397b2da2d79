"""A version made of another one: images relabelled, images left out; the first one stays what it was."""

from pathlib import Path

import numpy as np
import pytest

from models.data.changing import change_version
from models.data.dataset import load_folder
from models.data.importing.engine import import_archive
from models.data.importing.files import read_files
from models.data.importing.options import ImportOptions
from models.data.splits import split_indices
from models.errors import Conflict
from models.spec.data import DatasetSpec
from tests.service.datasets.photos import photos


def quiet(*_: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changing")
    archive = folder / "photos.zip"
    archive.write_bytes(photos({"cat": 6, "dog": 5, "emu": 3}))
    import_archive(archive, folder / "1", ImportOptions(name="photos", threads=1), quiet)
    return folder / "1"


def test_relabelling_moves_no_image_and_changes_the_fingerprint(version: Path, tmp_path: Path) -> None:
    before = load_folder(version)
    test_image = before.info.num_train  # the first of the test split
    report = change_version(version, tmp_path / "2", {0: 2, test_image: 1}, [], quiet)
    after = load_folder(tmp_path / "2")
    assert (after.train_images == before.train_images).all()
    assert (tmp_path / "2" / "train_images.npy").stat().st_nlink == 2
    assert after.train_labels[0] == 2
    assert after.test_labels[0] == 1
    assert (after.train_labels[1:] == before.train_labels[1:]).all()
    assert after.fingerprint == report["fingerprint"] != before.fingerprint
    assert load_folder(version).fingerprint == before.fingerprint
    assert sum(one["train"] + one["test"] for one in report["classes"]) == report["num_images"] == 14


def test_dropping_takes_images_and_their_files_out_and_numbers_the_rest_anew(version: Path, tmp_path: Path) -> None:
    before = load_folder(version)
    last = before.info.num_train + before.info.num_test - 1
    report = change_version(version, tmp_path / "2", {}, [0, 2, last], quiet)
    after = load_folder(tmp_path / "2")
    kept = [row for row in range(before.info.num_train) if row not in (0, 2)]
    assert (after.train_images == before.train_images[kept]).all()
    assert (after.test_images == before.test_images[:-1]).all()
    assert report["num_images"] == 11
    names = [record.name for record in read_files(version)]
    assert [record.name for record in read_files(tmp_path / "2")] == [
        name for image, name in enumerate(names) if image not in (0, 2, last)
    ]
    assert [record.id for record in read_files(tmp_path / "2")] == list(range(11))
    assert np.isclose(after.info.mean, (after.train_images / 255).mean(axis=(0, 2, 3))).all()


def test_a_class_without_images_is_gone_and_one_class_alone_is_refused(version: Path, tmp_path: Path) -> None:
    before = load_folder(version)
    labels = np.concatenate([before.train_labels, before.test_labels])
    emus, dogs = np.flatnonzero(labels == 2).tolist(), np.flatnonzero(labels == 1).tolist()
    change_version(version, tmp_path / "2", {}, emus, quiet)
    assert load_folder(tmp_path / "2").info.class_names == ("cat", "dog")
    with pytest.raises(Conflict, match=r"only 'cat' \(11 images\) would have images left"):
        change_version(version, tmp_path / "3", dict.fromkeys(dogs, 0), emus, quiet)
    with pytest.raises(Conflict, match="none of the 14 images would be left"):
        change_version(version, tmp_path / "3", {}, list(range(14)), quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2"]


def test_a_training_split_of_one_class_is_refused_whatever_the_test_split_has(version: Path, tmp_path: Path) -> None:
    labels = load_folder(version).train_labels
    others = np.flatnonzero(labels != 0).tolist()
    for relabelled, dropped in ((dict.fromkeys(others, 0), []), ({}, others), ({}, list(range(len(labels))))):
        with pytest.raises(Conflict, match="training split would have images of fewer than two classes"):
            change_version(version, tmp_path / "2", relabelled, dropped, quiet)
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_left_in_the_test_split_alone_is_named(version: Path, tmp_path: Path) -> None:
    emus = np.flatnonzero(load_folder(version).train_labels == 2).tolist()
    report = change_version(version, tmp_path / "2", {}, emus, quiet)
    assert "nothing is learned of them: 'emu'" in report["warnings"][-1]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version whose files say the images of the validation split: ids 0 to 7, of which 3 to 5 and 7 are held out."""
    folder = tmp_path_factory.mktemp("held-out")
    archive = folder / "photos.zip"
    archive.write_bytes(photos({"train/cat": 3, "val/cat": 3, "train/dog": 1, "val/dog": 1}))
    import_archive(archive, folder / "1", ImportOptions(name="photos", threads=1), quiet)
    return folder / "1"


def test_a_training_split_of_held_out_images_alone_is_refused(held_out: Path, tmp_path: Path) -> None:
    validation = load_folder(held_out).validation
    assert validation is not None
    with pytest.raises(Conflict, match="the 4 images left in the training split are those that are held out"):
        change_version(held_out, tmp_path / "2", {}, np.flatnonzero(~validation).tolist(), quiet)


def test_without_its_validation_images_a_version_is_split_as_one_that_never_had_any(
    held_out: Path, tmp_path: Path
) -> None:
    validation = load_folder(held_out).validation
    assert validation is not None
    change_version(held_out, tmp_path / "2", {}, np.flatnonzero(validation).tolist(), quiet)
    after = load_folder(tmp_path / "2")
    assert after.validation is None
    train, val = split_indices(after.train_labels, DatasetSpec(name="photos"), validation=after.validation)
    assert len(train) + len(val) == 4
    assert len(val)
