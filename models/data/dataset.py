"""Loads datasets: four arrays on disk, memory-mapped, so that all processes share one copy.

    cache_dir/datasets/cifar10-1/            `1` is the layout's version
        train_images.npy  train_labels.npy  test_images.npy  test_labels.npy
        dataset.json                         name, fingerprint, where it came from, the files' sizes

A dataset is fetched into a temporary folder and renamed when it is whole and checked; a folder under the final name is
therefore always complete. One process fetches while the others wait at a file lock.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.data.catalogue import get_recipe
from models.data.contents import ARRAY_NAMES
from models.data.fetching import dataset_folder, ensure_dataset, is_whole, read_note
from models.data.info import DatasetInfo
from models.data.sources import ReportBytes
from models.errors import DataUnavailable


class HasCacheDir(Protocol):
    """The settings that loading a built-in dataset needs."""

    @property
    def cache_dir(self) -> Path:
        """The folder that datasets are kept in."""


@dataclass(frozen=True)
class ImageDataset:
    """A dataset that can be trained on. Images are uint8 (N, C, H, W), labels int64 (N,).

    The images of a catalogued dataset are memory-mapped copy-on-write: torch takes them without copying or warning,
    every process shares the same pages, and the file cannot be changed through them. `fingerprint` is a SHA-256 of the
    content.
    """

    info: DatasetInfo
    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]
    fingerprint: str
    validation: npt.NDArray[np.bool_] | None = None
    """For each training image, whether the dataset's own files put it into a validation split; None without one."""
    groups: npt.NDArray[np.int64] | None = None
    """For each training image, the number of its group (one patient, one burst of photos); None without groups."""


def load_dataset(name: str, settings: HasCacheDir, progress: ReportBytes | None = None) -> ImageDataset:
    """Map a dataset into memory, fetching it first if this cache does not have it.

    Raises SpecError for an unknown name, DataUnavailable when no source delivers, StorageFull when the disk is full.
    """
    recipe = get_recipe(name)
    folder = ensure_dataset(recipe, settings.cache_dir, progress or (lambda label, done, total: None))
    info = recipe.info
    if recipe.measured:
        note = read_note(folder)
        info = replace(info, mean=tuple(note["mean"]), std=tuple(note["std"]), class_counts=tuple(note["class_counts"]))
    dataset = _map(folder, info)
    if info.num_validation is None:
        return dataset
    return replace(dataset, validation=np.arange(info.num_train) >= info.num_train - info.num_validation)


def load_folder(folder: Path) -> ImageDataset:
    """Map an imported dataset, as models.data.importing wrote it, into memory.

    Raises DataUnavailable if the folder is not there or not whole.
    """
    if not is_whole(folder):
        raise DataUnavailable(
            f"the dataset in {folder} is not there or not whole", fix="import its files again as a new version"
        )
    return _map(folder, DatasetInfo.from_json(read_note(folder)["info"]))


def _map(folder: Path, info: DatasetInfo) -> ImageDataset:
    # an array without rows cannot be mapped
    arrays: dict[str, Any] = {}
    for name in ARRAY_NAMES:
        path = folder / f"{name}.npy"
        mapped = "images" in name and (info.num_train if name.startswith("train") else info.num_test)
        arrays[name] = np.load(path, mmap_mode="c") if mapped else np.load(path)
    for name in ("validation", "groups"):
        if (path := folder / f"{name}.npy").exists():
            arrays[name] = np.load(path)
    return ImageDataset(info=info, fingerprint=str(read_note(folder)["fingerprint"]), **arrays)


def fetch_dataset(info: DatasetInfo, cache_dir: Path, progress: ReportBytes) -> Path:
    """The folder of a dataset, fetched if it is not there."""
    return ensure_dataset(get_recipe(info.name), cache_dir, progress)


def is_fetched(info: DatasetInfo, cache_dir: Path) -> bool:
    """Whether the cache holds this dataset, whole."""
    return is_whole(dataset_folder(info, cache_dir))
