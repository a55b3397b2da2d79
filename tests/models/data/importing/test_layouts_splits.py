"""Folders of splits by other names and with folders around the classes: never classes themselves."""

from pathlib import Path

import pytest

from tests.models.data.importing.archives import make_zip
from tests.models.data.importing.test_layouts import images, left_out, splits_of, understand, zipped


def names(*folders: str, count: int = 2) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(count)]


@pytest.mark.parametrize("inside", ["images", "train", "JPEGImages"])
def test_a_folder_around_the_classes_of_each_split_is_looked_through(tmp_path: Path, inside: str) -> None:
    files = names(f"train/{inside}/cat", f"train/{inside}/dog", f"val/{inside}/cat", f"val/{inside}/dog")
    _, plan, _ = understand(zipped(tmp_path, images(*files)))
    assert plan.class_names == ("cat", "dog")
    assert plan.validation.sum() == 4


def test_archives_of_splits_that_hold_a_folder_of_the_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        make_zip(tmp_path / f"{split}.zip", images(*names(f"{split}/cat", f"{split}/dog")))
    shards = {f"data/{split}.zip": (tmp_path / f"{split}.zip").read_bytes() for split in ("train", "valid")}
    _, plan, _ = understand(zipped(tmp_path, shards))
    assert plan.class_names == ("cat", "dog")
    assert plan.validation.sum() == 4


def test_unlabelled_images_in_a_folder_of_the_split_inside_its_archive_are_no_class(tmp_path: Path) -> None:
    train = make_zip(tmp_path / "train.zip", images(*names("train/cat", "train/dog"))).read_bytes()
    test = make_zip(tmp_path / "test.zip", images(*names("test"))).read_bytes()
    path = zipped(tmp_path, {"train.zip": train, "test.zip": test})
    assert understand(path)[1].class_names == ("cat", "dog")
    assert left_out(path) == dict.fromkeys(names("test.zip/test"), "is not in a class folder")


def test_a_class_that_is_called_as_its_split_is_one_if_other_splits_have_it(tmp_path: Path) -> None:
    files = names("train/val", "train/dog", "val/val")
    assert understand(zipped(tmp_path, images(*files)))[1].class_names == ("dog", "val")


@pytest.mark.parametrize("form", ["{}_images", "images_{}", "{} data", "{}-imgs", "{}_set"])
def test_a_split_is_one_with_a_word_for_images_in_its_folders_name(tmp_path: Path, form: str) -> None:
    train, test = form.format("train"), form.format("Test")
    files = names(f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog")
    found = splits_of(zipped(tmp_path, images(*files)))
    assert found == {name: "train" if name.startswith(train) else "test" for name in files}


@pytest.mark.parametrize("name", ["images", "data", "photo data", "test tube", "dev images of x", "validated"])
def test_other_names_are_classes(tmp_path: Path, name: str) -> None:
    assert understand(zipped(tmp_path, images(*names(name, "cat"))))[1].class_names == tuple(sorted((name, "cat")))


def test_classes_that_differ_in_capitals_alone_are_pointed_out(tmp_path: Path) -> None:
    _, plan, _ = understand(zipped(tmp_path, images(*names("Cat", "cat", "dog"))))
    assert plan.class_names == ("Cat", "cat", "dog")
    assert plan.warnings == ("'Cat', 'cat' differ in capitals or blanks alone, and each is a class of its own",)
