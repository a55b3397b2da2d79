"""Makes a new version of an uploaded dataset, with images relabelled or left out; the version before stays as it is."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.data.contents import ARRAY_NAMES, measure, version_fingerprint
from models.data.dataset import ImageDataset, load_folder
from models.data.description import ClassCountJson, DatasetNote, ImportReportJson
from models.data.fetching import read_note
from models.data.importing.files import FILES, read_files, write_files
from models.data.importing.names import shown
from models.errors import Conflict
from models.files import flush, link, make_folder, remove_tree, storage_errors
from models.progress import ReportProgress
from models.text import plural

CHUNK = 4096
"""Images that are copied at once."""
SMALLEST_STD = 1 / 255
FIX = "drop or relabel fewer images"
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """What a version becomes, before anything is written."""

    class_names: tuple[str, ...]
    """The classes that still have images."""
    labels: Labels
    """The new label of every image, also of those that are dropped."""
    stays: npt.NDArray[np.bool_]


def plan_change(before: ImageDataset, relabelled: Mapping[int, int], dropped: Sequence[int]) -> Change:
    """The classes and labels that a change would leave. Raises Conflict as `change_version` does."""
    num_train = before.info.num_train
    labels = np.concatenate([before.train_labels, before.test_labels])
    for image, label in relabelled.items():
        labels[image] = label
    stays = np.ones(len(labels), dtype=np.bool_)
    stays[list(dropped)] = False
    class_names, renumbered = _classes_left(before, labels, stays)
    in_train = labels[:num_train][stays[:num_train]]
    if len(set(in_train.tolist())) < 2:
        left = _counted(before.info.class_names, in_train)
        raise Conflict(f"the training split would have images of fewer than two classes: {left}", fix=FIX)
    if before.validation is not None and not (stays[:num_train] & ~before.validation).any():
        raise Conflict(
            f"no image to train on would be left: the {plural(len(in_train), 'image')} left in the training split are "
            "those that are held out for validation",
            fix=FIX,
        )
    return Change(class_names, renumbered, stays)


def change_version(
    source: Path, destination: Path, relabelled: Mapping[int, int], dropped: Sequence[int], progress: ReportProgress
) -> ImportReportJson:
    """Write the dataset of `source` to `destination`, without the `dropped` images and with new labels for others.

    Images are named by their ids: the rows of the training split, followed by those of the test split. Labels are
    class numbers. Classes without any image left are removed. `destination` is created by a rename. Returns the new
    version's report. Raises Conflict if fewer than two classes, in all or in the training split, or no image to train
    on would be left; StorageFull.
    """
    work = destination.parent / f".{destination.name}.changing"
    remove_tree(work)
    make_folder(work)
    try:
        with storage_errors(f"the dataset cannot be kept in {destination.parent}"):
            report = _change(load_folder(source), source, work, relabelled, dropped, progress)
            for path in [*work.iterdir(), work]:
                flush(path)
            work.rename(destination)
    finally:
        remove_tree(work)
    return report


def _change(
    before: ImageDataset,
    source: Path,
    work: Path,
    relabelled: Mapping[int, int],
    dropped: Sequence[int],
    progress: ReportProgress,
) -> ImportReportJson:
    num_train = before.info.num_train
    change = plan_change(before, relabelled, dropped)
    labels, train_stays, test_stays = change.labels, change.stays[:num_train], change.stays[num_train:]
    new_train, new_test = labels[:num_train][train_stays], labels[num_train:][test_stays]
    np.save(work / "train_labels.npy", new_train)
    np.save(work / "test_labels.npy", new_test)
    for name, images, kept in (
        ("train_images", before.train_images, train_stays),
        ("test_images", before.test_images, test_stays),
    ):
        _keep_images(source / f"{name}.npy", work / f"{name}.npy", images, kept, progress)
    for name in ("validation", "groups"):
        if (path := source / f"{name}.npy").exists():
            kept = np.load(path)[train_stays]
            if name == "groups" or kept.any():  # without a validation image left there is no such split any more
                np.save(work / path.name, kept)
    _write_list(source, work, change.stays)
    return _describe(before, source, work, change.class_names, len(relabelled), len(dropped), progress)


def _classes_left(before: ImageDataset, labels: Labels, stays: npt.NDArray[np.bool_]) -> tuple[tuple[str, ...], Labels]:
    """The classes that still have images, and the labels renumbered accordingly."""
    counts = np.bincount(labels[stays], minlength=before.info.num_classes)
    left = np.flatnonzero(counts)
    if len(left) < 2:
        what = f"of {before.info.num_classes} classes only {_counted(before.info.class_names, labels[stays])}"
        what = (
            f"{what} would have images left"
            if len(left)
            else f"none of the {plural(len(labels), 'image')} would be left"
        )
        raise Conflict(f"{what}; a classifier needs two classes at least", fix=FIX)
    numbers = np.zeros(before.info.num_classes, dtype=np.int64)
    numbers[left] = np.arange(len(left))
    return tuple(before.info.class_names[number] for number in left), numbers[labels]


def _counted(class_names: Sequence[str], labels: Labels) -> str:
    """The classes of these labels with their numbers of images: `'cat' (6 images)`."""
    numbers, counts = np.unique(labels, return_counts=True)
    each = (
        f"'{shown(class_names[int(number)])}' ({plural(int(count), 'image')})"
        for number, count in zip(numbers, counts, strict=True)
    )
    return ", ".join(each) or "none"


def _keep_images(
    source: Path, target: Path, images: npt.NDArray[np.uint8], stays: npt.NDArray[np.bool_], progress: ReportProgress
) -> None:
    """Copy the images that stay. If all do, the file is hard-linked instead, since it never changes."""
    if stays.all():
        link(source, target)
        return
    rows = np.flatnonzero(stays)
    shape = (len(rows), *images.shape[1:])
    if not len(rows):
        np.save(target, np.zeros(shape, dtype=np.uint8))
        return
    copied = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # else a full disk would end the process at a later write
        with target.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, target.stat().st_size)
    for start in range(0, len(rows), CHUNK):
        chosen = rows[start : start + CHUNK]
        copied[start : start + len(chosen)] = images[chosen]
        progress("copying images", start + len(chosen), len(rows))
    copied.flush()


def _write_list(source: Path, work: Path, stays: npt.NDArray[np.bool_]) -> None:
    """Write the list of the images that stay, with their new ids."""
    if not (source / FILES).exists():
        return
    kept = (record for record in read_files(source) if stays[record.id])
    write_files(work / FILES, (replace(record, id=number) for number, record in enumerate(kept)))


def _describe(
    before: ImageDataset,
    source: Path,
    work: Path,
    class_names: tuple[str, ...],
    num_relabelled: int,
    num_dropped: int,
    progress: ReportProgress,
) -> ImportReportJson:
    arrays = {name: np.load(work / f"{name}.npy", mmap_mode=None if "labels" in name else "r") for name in ARRAY_NAMES}
    train, test = arrays["train_labels"], arrays["test_labels"]
    validation = np.load(work / "validation.npy") if (work / "validation.npy").exists() else np.zeros(len(train), bool)
    groups = np.load(work / "groups.npy") if (work / "groups.npy").exists() else None
    mean, std, content = measure(replace(before, **arrays), partial(progress, "measuring the pixels"))
    info = replace(
        before.info,
        num_classes=len(class_names),
        class_names=class_names,
        num_train=len(train),
        num_test=len(test),
        mean=tuple(float(value) for value in mean),
        std=tuple(max(SMALLEST_STD, float(value)) for value in std),
        class_counts=None
        if before.info.class_counts is None
        else tuple(np.bincount(train, minlength=len(class_names)).tolist()),
        num_validation=int(validation.sum()) or None,
        num_groups=None if groups is None else len(np.unique(groups)),
    )
    note = read_note(source)
    digest = version_fingerprint(content, class_names, info.fit, validation, groups)
    said = f"{plural(num_relabelled, 'image')} relabelled and {num_dropped:,} dropped since version {source.name}"
    learned = np.bincount(train[~validation], minlength=len(class_names))
    unseen = ", ".join(f"'{name}'" for name, count in zip(class_names, learned, strict=True) if not count)
    if unseen:
        said += f"; not among the images to train on, so that nothing is learned of them: {unseen}"
    report: ImportReportJson = {
        **note.get("report", {}),
        "classes": _counts(class_names, train, validation, test),
        "num_images": len(train) + len(test),
        "num_train": len(train),
        "num_validation": int(validation.sum()),
        "num_test": len(test),
        "warnings": [*note.get("report", {}).get("warnings", []), said],
        "fingerprint": digest,
    }
    sizes = {f"{array}.npy": (work / f"{array}.npy").stat().st_size for array in ARRAY_NAMES}
    changed_note: DatasetNote = {
        **note,
        "fingerprint": digest,
        "content": content,
        "bytes": sizes,
        "info": info.as_json(),
        "report": report,
    }
    (work / "dataset.json").write_text(json.dumps(changed_note, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _counts(
    class_names: Sequence[str], train: Labels, validation: npt.NDArray[np.bool_], test: Labels
) -> list[ClassCountJson]:
    each = [np.bincount(labels, minlength=len(class_names)) for labels in (train[~validation], train[validation], test)]
    return [
        {"name": name, "train": int(trained), "validation": int(held), "test": int(tested)}
        for name, trained, held, tested in zip(class_names, *each, strict=True)
    ]
