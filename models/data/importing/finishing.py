"""The last part of an import: removes unused rows, writes labels, image list and description, and flushes the files."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.data.contents import ARRAY_NAMES, measure, version_fingerprint
from models.data.description import DatasetNote
from models.data.fetching import LAYOUT
from models.data.importing.files import FILES, ImageRecord, write_files
from models.data.importing.layouts.layout import Layout
from models.data.importing.names import shown
from models.data.importing.options import ClassCount, ImportOptions, ImportReport, Skipped
from models.data.importing.plan import Plan
from models.data.importing.reading import Reading
from models.data.importing.source import Entry
from models.data.info import DatasetInfo
from models.errors import ArchiveError
from models.files import flush
from models.progress import ReportProgress
from models.text import plural

MOST_SKIPPED = 1_000
"""Files that the report lists by name."""
SMALLEST_STD = 1 / 255
"""The standard deviation used for a constant channel in place of 0, since pixels are divided by it."""


@dataclass(frozen=True)
class _Contents:
    """The four arrays, for fingerprint and statistics."""

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]


def finish(
    work: Path,
    source: Path,
    entries: Sequence[Entry],
    layout: Layout,
    plan: Plan,
    options: ImportOptions,
    reading: Reading,
    reason: str,
    progress: ReportProgress,
) -> ImportReport:
    """Complete the dataset in the folder `work`. Returns its report. Raises ArchiveError if too little was readable."""
    kept = reading.written
    names = [entries[number].name for number in plan.entries]
    warnings = list(plan.warnings)
    class_names, labels = _classes_left(plan, kept, names, reading, warnings)
    reading.forget()
    num_train = int(kept[: plan.num_train].sum())
    parts = zip(reading.arrays, (kept[: plan.num_train], kept[plan.num_train :]), strict=True)
    train, test = (array.keep(part) for array, part in parts)
    contents = _Contents(train.rows_at("r"), labels[:num_train], test.rows_at("r"), labels[num_train:])
    np.save(work / "train_labels.npy", contents.train_labels)
    np.save(work / "test_labels.npy", contents.test_labels)
    validation = plan.validation[kept[: plan.num_train]]
    if validation.any():
        np.save(work / "validation.npy", validation)
    places = np.flatnonzero(kept)
    groups = _number_groups([plan.groups[place] for place in places[:num_train]])
    if groups is not None:
        np.save(work / "groups.npy", groups)
    write_files(
        work / FILES,
        (_record(number, int(place), num_train, plan, names, reading) for number, place in enumerate(places)),
    )
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as pool:  # the disk and the cores at the same time
        flushed = pool.map(flush, [train.path, test.path])
        mean, std, content = measure(contents, partial(progress, "measuring the pixels"))
        list(flushed)
    digest = version_fingerprint(content, class_names, options.fit.value, validation, groups)
    info = DatasetInfo(
        name=options.name,
        title=options.title or options.name,
        num_classes=len(class_names),
        class_names=class_names,
        channels=reading.channels,
        size=reading.size,
        num_train=num_train,
        num_test=len(places) - num_train,
        mean=tuple(float(value) for value in mean),
        std=tuple(max(SMALLEST_STD, float(value)) for value in std),
        source=f"imported from {source.name}",
        licence="not stated",
        has_up_and_down=options.has_up_and_down,
        can_be_mirrored=options.can_be_mirrored,
        fit=options.fit.value,
        num_validation=int(validation.sum()) or None,
        num_groups=None if groups is None else len(np.unique(groups)),
    )
    report = _report(info, contents, validation, layout, reading, names, options, reason, warnings, digest)
    _write_note(work, source, info, options, report, content)
    return report


def _classes_left(
    plan: Plan, kept: npt.NDArray[np.bool_], names: Sequence[str], reading: Reading, warnings: list[str]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The classes that still have images, and the labels of the kept images, renumbered accordingly."""
    counts = np.bincount(plan.labels[kept], minlength=len(plan.class_names))
    left = np.flatnonzero(counts)
    if len(left) < 2:
        place, why = next(iter(reading.reasons.items()), (0, "cannot be read"))
        only = f"only those of '{shown(plan.class_names[left[0]])}' can" if len(left) else "none can"
        raise ArchiveError(
            f"of {plural(len(names), 'image')}, {only} be read: '{shown(names[place])}' {why}",
            fix="replace the broken files, and send at least two classes",
            file=shown(names[place]),
        )
    lost = [shown(plan.class_names[number]) for number in np.flatnonzero(counts == 0)]
    if lost:
        warnings.append("none of their images can be read, so not among the classes: " + ", ".join(map(repr, lost)))
    in_train = np.bincount(plan.labels[: plan.num_train][kept[: plan.num_train]], minlength=len(plan.class_names))
    trained = kept[: plan.num_train] & ~plan.validation
    learned = np.bincount(plan.labels[: plan.num_train][trained], minlength=len(plan.class_names))
    for what, unseen in (
        ("only in the test split", [number for number in left if not in_train[number]]),
        ("not among the images to train on", [number for number in left if in_train[number] and not learned[number]]),
    ):
        if unseen:
            listed = ", ".join(f"'{shown(plan.class_names[number])}'" for number in unseen)
            warnings.append(f"{what}, so nothing is learned of them: {listed}")
    if (in_train > 0).sum() < 2:
        raise ArchiveError(
            "of the training split, images of fewer than two classes can be read",
            fix="replace the broken files",
            file=shown(names[next(iter(reading.reasons), 0)]),
        )
    if not trained.any():
        raise ArchiveError(
            "none of the images to train on can be read, only those that are held out for validation",
            fix="replace the broken files",
            file=shown(names[next(iter(reading.reasons), 0)]),
        )
    numbers = np.zeros(len(plan.class_names), dtype=np.int64)
    numbers[left] = np.arange(len(left))
    return tuple(plan.class_names[number] for number in left), numbers[plan.labels[kept]]


def _number_groups(groups: Sequence[str | None]) -> npt.NDArray[np.int64] | None:
    """Each training image's group number, None if no image has a group.

    An image without a group gets a number of its own.
    """
    if all(group is None for group in groups):
        return None
    numbers: dict[str | int, int] = {}
    keys = [place if group is None else group for place, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _record(number: int, place: int, num_train: int, plan: Plan, names: Sequence[str], reading: Reading) -> ImageRecord:
    given = plan.given[place]
    return ImageRecord(
        id=number,
        name=names[place],
        split="train" if number < num_train else "test",
        given=None if given is None else given.value,
        group=plan.groups[place],
        width=int(reading.sizes[place, 0]),
        height=int(reading.sizes[place, 1]),
    )


def _report(
    info: DatasetInfo,
    contents: _Contents,
    validation: npt.NDArray[np.bool_],
    layout: Layout,
    reading: Reading,
    names: Sequence[str],
    options: ImportOptions,
    reason: str,
    warnings: list[str],
    digest: str,
) -> ImportReport:
    def counted(labels: npt.NDArray[np.int64]) -> list[int]:
        return [int(count) for count in np.bincount(labels, minlength=info.num_classes)]

    held_out = counted(contents.train_labels[validation])
    both = counted(contents.train_labels)
    classes = [
        ClassCount(name=name, train=all_ - held, validation=held, test=test)
        for name, all_, held, test in zip(info.class_names, both, held_out, counted(contents.test_labels), strict=True)
    ]
    broken = [(names[place], why) for place, why in sorted(reading.reasons.items())]
    skipped = [Skipped(file=shown(name), reason=why) for name, why in (*broken, *layout.left_out)[:MOST_SKIPPED]]
    return ImportReport(
        layout=layout.name,
        classes=classes,
        num_images=info.num_train + info.num_test,
        num_train=info.num_train,
        num_validation=int(validation.sum()),
        num_test=info.num_test,
        channels=info.channels,
        image_size=info.size,
        image_size_reason=reason,
        fit=options.fit,
        skipped=skipped,
        num_skipped=len(broken) + len(layout.left_out),
        warnings=warnings,
        fingerprint=digest,
    )


def _write_note(
    work: Path, source: Path, info: DatasetInfo, options: ImportOptions, report: ImportReport, content: str
) -> None:
    note: DatasetNote = {
        "name": info.name,
        "layout": LAYOUT,
        "source": info.source,
        "fingerprint": report.fingerprint,
        "content": content,
        "bytes": {f"{array}.npy": (work / f"{array}.npy").stat().st_size for array in ARRAY_NAMES},
        "info": info.as_json(),
        "sources": [{"file": source.name, "bytes": source.stat().st_size if source.is_file() else None}],
        "policy": options.model_dump(mode="json", exclude={"threads"}) | {"image_size": info.size},
        "report": report.as_json(),
    }
    (work / "dataset.json").write_text(json.dumps(note, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in [*work.iterdir(), work]:
        flush(path)
