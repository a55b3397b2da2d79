"""Which version of an uploaded dataset a spec means."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from models.data.fetching import read_note
from models.data.uploaded import check_dataset_name, find_dataset, nearest_name
from models.errors import SpecError
from models.spec.data import DatasetSpec
from tests.models.data.importing.archives import classes, make_zip, run


@dataclass
class Folders:
    cache_dir: Path
    datasets_dir: Path


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Two versions with the same arrays, whose classes have other names."""
    run(make_zip(tmp_path / "1.zip", classes("cat", "dog")), tmp_path / "sets" / "photos" / "1")
    run(make_zip(tmp_path / "2.zip", classes("cat", "hound")), tmp_path / "sets" / "photos" / "2")
    return Folders(tmp_path / "cache", tmp_path / "sets")


def test_versions_with_the_same_arrays_are_told_apart(folders: Folders) -> None:
    for version, names in ((1, ("cat", "dog")), (2, ("cat", "hound"))):
        fingerprint = read_note(folders.datasets_dir / "photos" / str(version))["fingerprint"]
        found = find_dataset(DatasetSpec(name="photos", fingerprint=fingerprint), folders)
        assert found.info.class_names == names


def test_a_fingerprint_from_before_names_were_part_of_it_is_still_found(folders: Folders) -> None:
    content = read_note(folders.datasets_dir / "photos" / "1")["content"]
    found = find_dataset(DatasetSpec(name="photos", fingerprint=content), folders)
    assert found.folder == folders.datasets_dir / "photos" / "2", "the newest of those that it may mean"
    with pytest.raises(SpecError):
        find_dataset(DatasetSpec(name="photos", fingerprint="0" * 64), folders)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("photos", "photos"),
        ("my photos", "my-photos"),
        ("2024, K\u00f6ln (b\u00e4ume)", "Koln-baume"),
        ("a" * 80, "a" * 64),
        ("a" * 63 + " b", "a" * 63),
        ("\u72ac\u732b", ""),
        ("17", ""),
    ],
)
def test_a_folder_gives_its_dataset_a_valid_name_like_its_own(folder: str, name: str) -> None:
    assert nearest_name(folder) == name
    if name:
        check_dataset_name(name)
