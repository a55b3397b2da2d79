"""Findings on the number of images of each class, and on the pictures' original sizes and shapes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.data.health.report import Finding, Severity, finding
from models.data.importing.files import ImageRecord
from models.data.importing.names import shown
from models.data.info import DatasetInfo
from models.text import percent, plural

IMBALANCE, STRONG_IMBALANCE = 3.0, 10.0
FEW_IMAGES = 20
LONG_SHAPE = 3.0
MANY_CUT = 0.25
"""Part of a picture that is lost by cropping to a square, from which padding is suggested."""
SHOWN_CLASSES = 5


def class_counts(info: DatasetInfo, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> list[Finding]:
    """Findings on imbalance, classes with few images, and classes that a split lacks."""
    counts = np.bincount(train, minlength=info.num_classes)
    in_test = np.bincount(test, minlength=info.num_classes)
    figures = {"train": counts.tolist(), "test": in_test.tolist(), "classes": list(info.class_names)}
    class_names = [shown(name) for name in info.class_names]
    found = []
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    ratio = counts[largest] / max(1, counts[smallest])
    if ratio >= IMBALANCE:
        severity = Severity.WARNING if ratio >= STRONG_IMBALANCE else Severity.INFO
        always, most = counts[largest] / counts.sum(), class_names[largest]
        sentence = (
            f"'{most}' has {plural(int(counts[largest]), 'training image')} and '{class_names[smallest]}' "
            f"{counts[smallest]:,}, {ratio:.0f} times fewer: a network that always answers '{most}' is right in "
            f"{percent(always)}. Look at the accuracy of each class, and use class weights or a balanced sampler"
        )
        found.append(finding("classes.imbalance", severity, sentence, ratio=float(ratio), **figures))
    few = [number for number in np.argsort(counts, kind="stable") if counts[number] < FEW_IMAGES]
    if few:
        names = ", ".join(f"'{class_names[number]}' ({counts[number]:,})" for number in few[:SHOWN_CLASSES])
        more = f" and {len(few) - SHOWN_CLASSES:,} more" if len(few) > SHOWN_CLASSES else ""
        have = "has" if len(few) == 1 else "have"
        classes = plural(len(few), "class", "classes")
        sentence = f"{classes} {have} fewer than {FEW_IMAGES} training images: {names}{more}"
        found.append(finding("classes.few", Severity.WARNING, sentence, **figures))
    absent = [info.class_names[number] for number in range(info.num_classes) if len(test) and not in_test[number]]
    if absent:
        names = ", ".join(f"'{shown(name)}'" for name in absent[:SHOWN_CLASSES])
        sentence = f"the test split has no image of {plural(len(absent), 'class', 'classes')}: {names}"
        found.append(finding("classes.untested", Severity.WARNING, sentence, classes=absent))
    return found or [finding("classes.counts", Severity.INFO, _balanced(counts), **figures)]


def _balanced(counts: npt.NDArray[np.int64]) -> str:
    if counts.min() == counts.max():
        return f"each class has {plural(int(counts.min()), 'training image')}"
    return f"the classes have {counts.min():,} to {counts.max():,} training images each"


def picture_sizes(info: DatasetInfo, files: Sequence[ImageRecord]) -> list[Finding]:
    """Findings on pictures that were enlarged or lost much by cropping."""
    known = [record for record in files if record.width and record.height]
    if not known:
        return []
    widths, heights = (np.array([getattr(record, side) for record in known]) for side in ("width", "height"))
    short, long = np.minimum(widths, heights), np.maximum(widths, heights)
    figures = {
        "median": [int(np.median(widths)), int(np.median(heights))],
        "smallest": [int(widths.min()), int(heights.min())],
        "largest": [int(widths.max()), int(heights.max())],
    }
    ids = np.array([record.id for record in known])
    found = []
    small = ids[short < info.size].tolist()
    if small:
        sentence = (
            f"{plural(len(small), 'picture')} had a side shorter than the {info.size} pixels stored, and "
            f"{'was' if len(small) == 1 else 'were'} enlarged: {'it shows' if len(small) == 1 else 'they show'} less "
            "than the others, and a network may learn that"
        )
        found.append(finding("sizes.enlarged", Severity.INFO, sentence, small, **figures))
    lost = 1 - short / long
    if info.fit == "crop" and (cut := float(lost.mean())) >= MANY_CUT:
        sentence = (
            f"cropping to squares left out {percent(cut)} of the pictures on average; import with fit 'pad' if what "
            "counts is near their edges"
        )
        found.append(finding("sizes.cropped", Severity.WARNING, sentence, mean_lost=cut, **figures))
    odd = ids[long >= LONG_SHAPE * short].tolist()
    if odd:
        sentence = (
            f"{plural(len(odd), 'picture')} {'is' if len(odd) == 1 else 'are'} three times as long as wide, or more"
        )
        found.append(finding("sizes.shape", Severity.INFO, sentence, odd, **figures))
    return found
