"""The check of a whole dataset: counts, sizes, pixels, copies, labels, and whether there are enough images."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.data.dataset import ImageDataset
from models.data.health.counts import class_counts, picture_sizes
from models.data.health.duplicates import Pair, exact_copies, near_copies
from models.data.health.pixels import measure, quality_findings
from models.data.health.report import Finding, HealthReport, Severity, finding
from models.data.importing.files import ImageRecord
from models.data.importing.names import shown
from models.progress import ReportProgress
from models.text import percent, plural

if TYPE_CHECKING:
    from models.data.health.features import LoadWeights
    from models.data.health.labels import Suspect
    from models.data.health.learning_curve import Curve

MOST_JUDGED = 60_000
"""The most images whose labels are judged: all their features are in memory."""
MOST_MIRRORED = 20_000
"""Images that are looked at mirrored too: it doubles the time, and brings less the more there are."""
MIN_MARGIN = 0.66
"""An image is reported if another class is more probable than its label by at least this much."""
MIN_PER_CLASS = 5
WORTH_MORE_IMAGES = 0.02


def health_report(
    dataset: ImageDataset,
    files: Iterable[ImageRecord],
    progress: ReportProgress,
    *,
    load_weights: "LoadWeights | None" = None,
    deep: bool = True,
) -> HealthReport:
    """Check a dataset; ids count training images first and those of the test split behind them.

    `deep` judges labels and the number of images too, from features of every image: this needs torch, and minutes for
    tens of thousands of images; without it NumPy is enough. `load_weights` gives the network that computes the
    features; without it patches of the images do. `progress(what, done, total)` may raise to stop.
    """
    records = list(files)
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    found = class_counts(dataset.info, dataset.train_labels, dataset.test_labels)
    found += picture_sizes(dataset.info, records)
    splits = [split for split in (dataset.train_images, dataset.test_images) if len(split)]
    measures = measure(*splits, progress=partial(progress, "looking at the pixels"))
    found += quality_findings(*measures, dataset.info.size)
    exact = exact_copies(*splits, progress=partial(progress, "searching for equal images"))
    others = [image for group in exact for image in group[1:]]
    near = near_copies(*splits, without=others, progress=progress)
    found += copies(exact, near, labels, _split_numbers(dataset), dataset.info.class_names)
    features = None
    if deep:
        features = _judge(dataset, labels, families(exact, near, len(labels)), load_weights, progress, found)
    order = {Severity.PROBLEM: 0, Severity.WARNING: 1, Severity.INFO: 2}
    found.sort(key=lambda one: order[one.severity])
    return HealthReport(dataset.fingerprint, len(labels), found, features)


def _split_numbers(dataset: ImageDataset) -> npt.NDArray[np.int64]:
    """0 for training images, 1 for those that the files hold out for validation, 2 for the test split."""
    train = np.zeros(len(dataset.train_labels), dtype=np.int64)
    if dataset.validation is not None:
        train[dataset.validation] = 1
    return np.concatenate([train, np.full(len(dataset.test_labels), 2)])


# Copies


def copies(
    exact: Sequence[Sequence[int]],
    near: Sequence[Pair],
    labels: npt.NDArray[np.int64],
    splits: npt.NDArray[np.int64],
    class_names: Sequence[str],
) -> list[Finding]:
    """Findings on copies: those across splits, those with different labels, exact ones, near ones.

    `near` has pairs of different pixels alone: of images with equal ones it names the first.
    """
    pairs = [(group[0], other) for group in exact for other in group[1:]]
    alike = [(pair.first, pair.second) for pair in near]
    both = [*pairs, *alike]
    across = [(a, b) for a, b in both if splits[a] != splits[b]]
    equal = {group[0]: group for group in exact}
    alike_groups = [*exact, *([*equal.get(a, [a]), *equal.get(b, [b])] for a, b in alike)]
    earliest = [min(splits[image] for image in group) for group in alike_groups]
    later = sorted(
        {image for group, first in zip(alike_groups, earliest, strict=True) for image in group if splits[image] > first}
    )
    found = []
    if later:
        of_test = [image for image in later if splits[image] == 2]
        total = int((splits == 2).sum())
        held_out = len(later) - len(of_test)
        parts = [plural(held_out, "validation image")] if held_out else []
        if of_test:
            parts.insert(0, f"{len(of_test):,} of {total:,} test images ({percent(len(of_test) / total)})")
        are = "is a copy of an image" if len(later) == 1 else "are copies of images"
        sentence = (
            f"{' and '.join(parts)} {are} of an earlier split, so that accuracy is measured too high: drop them, or "
            "group the images so that copies stay together"
        )
        figures = {"pairs": across[:1000], "test_images": len(of_test), "test_share": len(of_test) / max(1, total)}
        found.append(finding("duplicates.leakage", Severity.PROBLEM, sentence, later, **figures))
    differ = [(a, b) for a, b in both if labels[a] != labels[b]]
    if differ:
        a, b = differ[0]
        sentence = (
            f"{plural(len(differ), 'pair')} of copies {'has' if len(differ) == 1 else 'have'} different labels: "
            f"image {a} is '{shown(class_names[labels[a]])}' and its copy {b} '{shown(class_names[labels[b]])}'"
        )
        images = sorted({image for pair in differ for image in pair})
        found.append(finding("duplicates.labels", Severity.WARNING, sentence, images, pairs=differ[:1000]))
    if pairs:
        extra = sum(len(group) - 1 for group in exact)
        sentence = f"{plural(extra, 'image')} {'has' if extra == 1 else 'have'} the same pixels as another"
        images = sorted({image for group in exact for image in group})
        found.append(finding("duplicates.exact", Severity.WARNING, sentence, images, groups=[*map(list, exact)][:1000]))
    if alike:
        sentence = (
            f"{plural(len(alike), 'pair')} of images {'shows' if len(alike) == 1 else 'show'} the same but for a "
            "mirror, a crop, brightness or compression"
        )
        images = sorted({image for pair in alike for image in pair})
        found.append(finding("duplicates.near", Severity.WARNING, sentence, images, pairs=alike[:1000]))
    return found


def families(exact: Sequence[Sequence[int]], near: Sequence[Pair], count: int) -> npt.NDArray[np.int64]:
    """A number that copies of each other share (the smallest of their ids)."""
    parent = list(range(count))

    def root(image: int) -> int:
        while parent[image] != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    pairs = [(group[0], other) for group in exact for other in group[1:]] + [(one.first, one.second) for one in near]
    for a, b in pairs:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    return np.array([root(image) for image in range(count)], dtype=np.int64)


# Labels


def _judge(
    dataset: ImageDataset,
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    load_weights: "LoadWeights | None",
    progress: ReportProgress,
    found: list[Finding],
) -> str | None:
    """Add findings on labels and on the number of images. Returns the features used; None with too few images."""
    from models.data.health.classifiers import probabilities
    from models.data.health.features import features
    from models.data.health.labels import better_than_guessing, suspects
    from models.data.health.learning_curve import learning_curve  # these need torch

    names = dataset.info.class_names
    if len(labels) < MIN_PER_CLASS * len(names):
        return None
    chosen = np.arange(len(labels))
    if len(labels) > MOST_JUDGED:
        chosen = np.sort(np.argsort(np.random.PCG64(0).random_raw(len(labels)), kind="stable")[:MOST_JUDGED])
    in_train = chosen[chosen < len(dataset.train_labels)]
    in_test = chosen[len(in_train) :] - len(dataset.train_labels)
    parts = [(dataset.train_images, in_train), (dataset.test_images, in_test)]
    values, made_by = features(
        [(images, places) for images, places in parts if len(places)],
        load_weights,
        partial(progress, "computing features of the images"),
        mirrored=dataset.info.can_be_mirrored and len(chosen) <= MOST_MIRRORED,
    )
    own, own_groups = labels[chosen], groups[chosen]

    def report(what: str, share: float) -> None:
        progress(what, round(share * len(own)), len(own))

    report("judging labels", 0)
    judged = probabilities(values, own, len(names), own_groups, partial(report, "judging labels"))
    doubted = []
    if better_than_guessing(judged, own):
        doubted = [one for one in suspects(judged, own) if one.margin >= MIN_MARGIN]
    if doubted:
        found.append(_wrong_labels(doubted, chosen, names))
    report("measuring the learning curve", 0)
    curve = learning_curve(values, own, len(names), partial(report, "measuring the learning curve"))
    if curve is not None:
        found.append(_more_images(curve))
    return made_by


def _wrong_labels(doubted: "Sequence[Suspect]", chosen: npt.NDArray[np.int64], names: Sequence[str]) -> Finding:
    """The finding on labels that are probably wrong; `chosen` are the numbers in the dataset of the judged images."""
    worst = doubted[0]
    are = "1 label is probably wrong"
    if len(doubted) > 1:
        are = f"{len(doubted):,} labels are probably wrong, the most certain first"
    sentence = (
        f"{are}: image {chosen[worst.image]} is labelled '{shown(names[worst.label])}' and looks like "
        f"'{shown(names[worst.likely])}'"
    )
    details = [
        {
            "image": int(chosen[one.image]),
            "label": names[one.label],
            "likely": names[one.likely],
            "margin": round(one.margin, 3),
        }
        for one in doubted[:1000]
    ]
    images = [int(chosen[one.image]) for one in doubted]
    return finding("labels.suspects", Severity.WARNING, sentence, images, suspects=details)


def _more_images(curve: "Curve") -> Finding:
    """The finding on what twice as many images would bring."""
    low, high = (100 * gain for gain in curve.gain)
    points = f"{low:.0f} to {high:.0f}" if f"{low:.0f}" != f"{high:.0f}" else f"about {high:.0f}"
    sentence = (
        f"about twice as many images would bring {points} points of accuracy"
        if curve.gain[1] >= WORTH_MORE_IMAGES
        else f"twice as many images would bring less than {100 * WORTH_MORE_IMAGES:.0f} points of accuracy"
    )
    sentence += f" (by a linear classifier on features, which has {percent(curve.accuracies[-1])} now)"
    return finding(
        "enough.curve",
        Severity.INFO,
        sentence,
        num_images=curve.num_images,
        accuracies=curve.accuracies,
        gain=list(curve.gain),
    )
