"""Fetching a dataset once: into a temporary folder, checked, and renamed when it is whole. See models.data.dataset."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.data.contents import ARRAY_NAMES, fingerprint, pixel_statistics
from models.data.description import DatasetNote
from models.data.info import DatasetInfo
from models.data.locking import file_lock
from models.data.sources import Arrays, ReportBytes, Source, SourceFailed
from models.errors import DataUnavailable
from models.files import FREE_CACHE, flush, storage_errors

LAYOUT = 1


@dataclass(frozen=True)
class Recipe:
    """A built-in dataset: its description, its sources, and the first labels, by which a download is checked."""

    info: DatasetInfo
    sources: tuple[Source, ...]
    first_train_labels: tuple[int, ...] = ()
    first_test_labels: tuple[int, ...] = ()
    measured: bool = False
    """Whether mean and deviation of its pixels are measured when it is fetched, and not known to six digits before.

    The last `info.num_validation` of its training images are those that it holds out.
    """


def ensure_dataset(recipe: Recipe, cache_dir: Path, progress: ReportBytes) -> Path:
    """The folder of a dataset, fetched from the first source that works if it is not in the cache.

    Raises DataUnavailable, which names every source and why it failed, and StorageFull.
    """
    info = recipe.info
    folder = dataset_folder(info, cache_dir)
    if is_whole(folder):
        return folder

    def waiting() -> None:
        progress(f"waiting for another process that fetches {info.title}", 0, None)

    with (
        storage_errors(f"{info.title} cannot be kept in {folder.parent}", fix=FREE_CACHE),
        file_lock(folder.parent / f"{info.name}.lock", waiting),
    ):
        if not is_whole(folder):
            _fetch(recipe, folder, progress)
    return folder


def _fetch(recipe: Recipe, folder: Path, progress: ReportBytes) -> None:
    info = recipe.info
    prefix = f".{info.name}.fetching-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)  # of a process that was killed: the lock is ours, so nobody writes there
    failures = []
    for source in recipe.sources:
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            _fetch_from(source, recipe, work, progress)
        except SourceFailed as failure:
            failures.append(f"{source.name}: {failure}")
        else:
            if folder.exists():  # damaged, or it would have been taken
                os.replace(folder, work / "damaged")
            os.replace(work / "dataset", folder)
            flush(folder.parent)
            return
        finally:
            shutil.rmtree(work, ignore_errors=True)
    raise DataUnavailable(
        f"{info.title} could be fetched from none of its sources. " + " | ".join(failures),
        fix="check the network (a proxy is taken from HTTPS_PROXY, npm's registry from .npmrc), then run "
        f"`epochal data fetch {info.name}`; a cache from another machine can be copied to EPOCHAL_CACHE_DIR",
        sources=[source.name for source in recipe.sources],
    )


def _fetch_from(source: Source, recipe: Recipe, work: Path, progress: ReportBytes) -> None:
    """Fill work/dataset from one source, check it, and flush it to the disk."""
    info = recipe.info
    downloads, target = work / "downloads", work / "dataset"
    downloads.mkdir()
    target.mkdir()
    arrays = _create_arrays(info, target)
    source.fetch(downloads, arrays, progress)
    progress("checking", 0, None)
    mean, std = check(recipe, arrays)
    for array in ARRAY_NAMES:
        getattr(arrays, array).flush()
    note: DatasetNote = {
        "name": info.name,
        "layout": LAYOUT,
        "source": source.name,
        "fingerprint": fingerprint(arrays),
        "mean": mean,
        "std": std,
        "class_counts": np.bincount(arrays.train_labels, minlength=info.num_classes).tolist(),
        "bytes": {f"{array}.npy": (target / f"{array}.npy").stat().st_size for array in ARRAY_NAMES},
    }
    (target / "dataset.json").write_text(json.dumps(note, indent=2) + "\n")
    for path in [*target.iterdir(), target]:
        flush(path)


def _create_arrays(info: DatasetInfo, folder: Path) -> Arrays:
    def create(name: str, dtype: type, shape: tuple[int, ...]) -> Any:
        path = folder / f"{name}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        _reserve(path)
        return array

    image = (info.channels, info.size, info.size)
    return Arrays(
        train_images=create("train_images", np.uint8, (info.num_train, *image)),
        train_labels=create("train_labels", np.int64, (info.num_train,)),
        test_images=create("test_images", np.uint8, (info.num_test, *image)),
        test_labels=create("test_labels", np.int64, (info.num_test,)),
    )


def _reserve(path: Path) -> None:
    """Allocate the file's whole size now: a full disk would end the process at a later write to the mapping."""
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def check(recipe: Recipe, arrays: Arrays) -> tuple[list[float], list[float]]:
    """Compare a fetched dataset with its recipe: the first labels, and mean and standard deviation of the pixels.

    Returns mean and standard deviation. For a `measured` dataset only a deviation of 0 is refused: its files were
    checked by their digests.
    """
    info = recipe.info
    for split, labels, known in (
        ("training", arrays.train_labels, recipe.first_train_labels),
        ("test", arrays.test_labels, recipe.first_test_labels),
    ):
        if tuple(labels[: len(known)].tolist()) != known:
            raise SourceFailed(f"the first {split} labels are {labels[: len(known)].tolist()}, not {list(known)}")
        if set(np.unique(labels).tolist()) != set(range(info.num_classes)):
            raise SourceFailed(f"the {split} labels are not the numbers from 0 to {info.num_classes - 1}")
    mean, std = pixel_statistics(arrays.train_images)
    if recipe.measured:
        if not std.all():
            raise SourceFailed("all training pixels are the same")
        return mean.tolist(), std.tolist()
    if not (np.allclose(mean, info.mean, rtol=0, atol=1e-6) and np.allclose(std, info.std, rtol=0, atol=1e-6)):
        raise SourceFailed(
            f"the training pixels have mean {mean.tolist()} and std {std.tolist()}, "
            f"not {list(info.mean)} and {list(info.std)}"
        )
    return mean.tolist(), std.tolist()


def dataset_folder(info: DatasetInfo, cache_dir: Path) -> Path:
    """The folder of a dataset in the cache."""
    return cache_dir / "datasets" / f"{info.name}-{LAYOUT}"


def is_whole(folder: Path) -> bool:
    """Whether all array files exist with their recorded sizes, so that a truncated file is noticed."""
    try:
        sizes = read_note(folder)["bytes"]
        return len(sizes) == len(ARRAY_NAMES) and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_note(folder: Path) -> DatasetNote:
    """The description of the dataset in a folder, written when it was fetched, imported or changed."""
    note: DatasetNote = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    return note
