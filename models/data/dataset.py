"""Datasets as every process sees them: four arrays on disk, memory-mapped, so that workers share one copy.

    cache_dir/datasets/cifar10-1/            `1` is the layout's version
        train_images.npy  train_labels.npy  test_images.npy  test_labels.npy
        dataset.json                         name, fingerprint, where it came from, the files' sizes

A dataset is fetched into a temporary folder and renamed when it is whole and checked; a folder under the final name is
therefore always complete. One process fetches while the others wait at a file lock.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.data.catalogue import get_recipe
from models.data.contents import ARRAY_NAMES
from models.data.fetching import dataset_folder, ensure_dataset, is_whole, read_note
from models.data.info import DatasetInfo
from models.data.sources import Progress


class HasCacheDir(Protocol):
    """What is needed of the settings."""

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


def load_dataset(name: str, settings: HasCacheDir, progress: Progress | None = None) -> ImageDataset:
    """Map a dataset into memory, fetching it first if this cache does not have it.

    Raises SpecError for an unknown name, DataUnavailable when no source delivers, StorageFull when the disk is full.
    """
    recipe = get_recipe(name)
    folder = ensure_dataset(recipe, settings.cache_dir, progress or (lambda label, done, total: None))
    arrays = {array: np.load(folder / f"{array}.npy", mmap_mode="c") for array in ARRAY_NAMES if "images" in array}
    labels = {array: np.load(folder / f"{array}.npy") for array in ARRAY_NAMES if "labels" in array}
    return ImageDataset(info=recipe.info, fingerprint=str(read_note(folder)["fingerprint"]), **arrays, **labels)


def fetch_dataset(info: DatasetInfo, cache_dir: Path, progress: Progress) -> Path:
    """The folder of a dataset, fetched if it is not there."""
    return ensure_dataset(get_recipe(info.name), cache_dir, progress)


def is_fetched(info: DatasetInfo, cache_dir: Path) -> bool:
    """Whether the cache holds this dataset, whole."""
    return is_whole(dataset_folder(info, cache_dir))
