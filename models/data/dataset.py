"""Datasets as every process sees them: four arrays on disk, memory-mapped, so that workers share one copy.

    cache_dir/datasets/cifar10-1/            `1` is the layout's version
        train_images.npy  train_labels.npy  test_images.npy  test_labels.npy
        dataset.json                         name, fingerprint, where it came from, the files' sizes

A dataset is fetched into a temporary folder and renamed when it is whole and checked; a folder under the final name is
therefore always complete. One process fetches while the others wait at a file lock.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.data import cifar10, fashion_mnist
from models.data.catalogue import CIFAR10, FASHION_MNIST, DatasetInfo, get_dataset
from models.data.locking import file_lock
from models.data.sources import Arrays, Progress, Source, SourceFailed
from models.errors import DataUnavailable, StorageFull

LAYOUT = 1
ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


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


@dataclass(frozen=True)
class _Recipe:
    """Where a dataset comes from, and by what its content is known."""

    sources: tuple[Source, ...]
    first_train_labels: tuple[int, ...]
    first_test_labels: tuple[int, ...]


_RECIPES = {
    CIFAR10.name: _Recipe(cifar10.SOURCES, cifar10.FIRST_TRAIN_LABELS, cifar10.FIRST_TEST_LABELS),
    FASHION_MNIST.name: _Recipe(
        fashion_mnist.SOURCES, fashion_mnist.FIRST_TRAIN_LABELS, fashion_mnist.FIRST_TEST_LABELS
    ),
}


def load_dataset(name: str, settings: HasCacheDir, progress: Progress | None = None) -> ImageDataset:
    """Map a dataset into memory, fetching it first if this cache does not have it.

    Raises SpecError for an unknown name, DataUnavailable when no source delivers, StorageFull when the disk is full.
    """
    info = get_dataset(name)
    folder = ensure_dataset(info, settings.cache_dir, progress or (lambda label, done, total: None))
    note = _read_note(folder) or {}
    arrays = {array: np.load(folder / f"{array}.npy", mmap_mode="c") for array in ARRAY_NAMES if "images" in array}
    labels = {array: np.load(folder / f"{array}.npy") for array in ARRAY_NAMES if "labels" in array}
    return ImageDataset(info=info, fingerprint=note["fingerprint"], **arrays, **labels)


def is_fetched(info: DatasetInfo, cache_dir: Path) -> bool:
    """Whether the cache holds this dataset, whole."""
    return _is_whole(_folder(info, cache_dir))


def ensure_dataset(
    info: DatasetInfo, cache_dir: Path, progress: Progress, sources: tuple[Source, ...] | None = None
) -> Path:
    """The folder of a dataset, fetched from the first source that delivers if it is not there."""
    folder = _folder(info, cache_dir)
    if _is_whole(folder):
        return folder

    def waiting() -> None:
        progress(f"waiting for another process that fetches {info.title}", 0, None)

    try:
        with file_lock(folder.parent / f"{info.name}.lock", waiting):
            if not _is_whole(folder):
                _fetch(info, folder, sources or _RECIPES[info.name].sources, progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise StorageFull(
                f"{info.title} cannot be kept in {folder.parent}: {error.strerror}",
                fix="make room there, or set EPOCHAL_CACHE_DIR to a folder that can be written",
            ) from error
        raise
    return folder


def _fetch(info: DatasetInfo, folder: Path, sources: tuple[Source, ...], progress: Progress) -> None:
    for leftover in folder.parent.glob(f".{info.name}-*"):
        shutil.rmtree(leftover)  # of a process that was killed: the lock is ours, so nobody writes there
    failures = []
    for source in sources:
        work = Path(tempfile.mkdtemp(prefix=f".{info.name}-", dir=folder.parent))
        try:
            _fetch_from(source, info, work, progress)
        except SourceFailed as failure:
            failures.append(f"{source.name}: {failure}")
        else:
            if folder.exists():  # damaged, or it would have been taken
                os.replace(folder, work / "damaged")
            os.replace(work / "dataset", folder)
            _sync(folder.parent)
            return
        finally:
            shutil.rmtree(work, ignore_errors=True)
    raise DataUnavailable(
        f"{info.title} could be fetched from none of its sources. " + " | ".join(failures),
        fix="check the network (a proxy is taken from HTTPS_PROXY, npm's registry from .npmrc), then run "
        f"`python -m models.data fetch {info.name}`; a cache from another machine can be copied to EPOCHAL_CACHE_DIR",
        sources=[source.name for source in sources],
    )


def _fetch_from(source: Source, info: DatasetInfo, work: Path, progress: Progress) -> None:
    """Fill work/dataset from one source, check it, and see it onto the disk."""
    downloads, target = work / "downloads", work / "dataset"
    downloads.mkdir()
    target.mkdir()
    arrays = _create_arrays(info, target)
    source.fetch(downloads, arrays, progress)
    progress("checking", 0, None)
    check(info, arrays)
    for array in ARRAY_NAMES:
        getattr(arrays, array).flush()
    note = {
        "name": info.name,
        "layout": LAYOUT,
        "source": source.name,
        "fingerprint": fingerprint(arrays),
        "bytes": {f"{array}.npy": (target / f"{array}.npy").stat().st_size for array in ARRAY_NAMES},
    }
    (target / "dataset.json").write_text(json.dumps(note, indent=2) + "\n")
    for path in [*target.iterdir(), target]:
        _sync(path)


def _create_arrays(info: DatasetInfo, folder: Path) -> Arrays:
    def create(name: str, dtype: type, shape: tuple[int, ...]) -> Any:
        return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)

    image = (info.channels, info.size, info.size)
    return Arrays(
        train_images=create("train_images", np.uint8, (info.num_train, *image)),
        train_labels=create("train_labels", np.int64, (info.num_train,)),
        test_images=create("test_images", np.uint8, (info.num_test, *image)),
        test_labels=create("test_labels", np.int64, (info.num_test,)),
    )


def check(info: DatasetInfo, arrays: Arrays) -> None:
    """Compare what was fetched with what is known of the dataset: first labels, mean and deviation of the pixels."""
    recipe = _RECIPES[info.name]
    for split, labels, known in (
        ("training", arrays.train_labels, recipe.first_train_labels),
        ("test", arrays.test_labels, recipe.first_test_labels),
    ):
        if tuple(labels[: len(known)].tolist()) != known:
            raise SourceFailed(f"the first {split} labels are {labels[: len(known)].tolist()}, not {list(known)}")
        if set(np.unique(labels).tolist()) != set(range(info.num_classes)):
            raise SourceFailed(f"the {split} labels are not the numbers from 0 to {info.num_classes - 1}")
    mean, std = pixel_statistics(arrays.train_images)
    if not (np.allclose(mean, info.mean, rtol=0, atol=1e-6) and np.allclose(std, info.std, rtol=0, atol=1e-6)):
        raise SourceFailed(
            f"the training pixels have mean {mean.tolist()} and std {std.tolist()}, "
            f"not {list(info.mean)} and {list(info.std)}"
        )


def pixel_statistics(
    images: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation per channel of uint8 images (N, C, H, W), with pixels from 0 to 1.

    Counted value by value: exact, and a few thousand images at a time keep the memory small.
    """
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), 5000):
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(images[start : start + 5000, channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    return mean, np.sqrt(weights @ values**2 - mean**2)


def fingerprint(arrays: Arrays | ImageDataset) -> str:
    """SHA-256 of the content: names, shapes and bytes of the four arrays, whatever source or file they came from."""
    digest = hashlib.sha256()
    for name in ARRAY_NAMES:
        array = getattr(arrays, name)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        for start in range(0, len(array), 5000):
            digest.update(np.ascontiguousarray(array[start : start + 5000]).tobytes())
    return digest.hexdigest()


def _folder(info: DatasetInfo, cache_dir: Path) -> Path:
    return cache_dir / "datasets" / f"{info.name}-{LAYOUT}"


def _is_whole(folder: Path) -> bool:
    """Whether all files are there at their sizes; a file that was cut short later (a full disk, a copy) is noticed."""
    note = _read_note(folder)
    if note is None:
        return False
    sizes = note.get("bytes", {})
    try:
        return len(sizes) == len(ARRAY_NAMES) and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except OSError:
        return False


def _read_note(folder: Path) -> dict[str, Any] | None:
    try:
        note = json.loads((folder / "dataset.json").read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and isinstance(note.get("fingerprint"), str) else None


def _sync(path: Path) -> None:
    """Have a file or folder on the disk before anything relies on it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
