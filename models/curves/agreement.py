"""Compares two histories of the same spec: identical to the bit, within noise, or different."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NotRequired, TypedDict

import numpy as np

from models.curves.metrics import EpochMetrics
from models.curves.statistics import Array, Noise, counted_images, estimate_noise
from models.plain import finite
from models.text import plural

COMPARED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "grad_norm")
"""The series that a reproduction must repeat; seconds and memory may differ."""
JUDGED = ("val_accuracy", "val_loss", "train_loss", "train_accuracy")
"""The series that decide whether runs that are not identical differ by chance only."""
FLOOR_ACCURACY = 0.01
"""Runs that differ in their seed alone end a point of accuracy apart, whatever each one's own wobble."""
FLOOR_LOSS = 0.03
"""The same for a loss, as a fraction of it."""
SIGMAS = 3.0
FEWEST_EPOCHS = 6
"""The fewest epochs in which a curve's noise can be distinguished from its shape."""
HEAD_START = 0.15
"""Part of a run by which another seed may be ahead or behind while a curve still moves."""
SHARED = 0.5
"""Two runs of one spec are mostly right about the same images: this correlation is left out of the images' noise."""


Pairs = list[tuple[EpochMetrics, EpochMetrics]]


class Agreement(StrEnum):
    """The outcome of comparing two histories."""

    BIT_IDENTICAL = "bit-identical"
    """Every figure of every epoch is the same number."""
    WITHIN_NOISE = "within-noise"
    """They differ by no more than chance explains: each curve's own wobble, so few images, what another seed does."""
    DIFFERENT = "different"
    """They differ by more, or have different lengths."""
    TOO_FEW_EPOCHS = "too-few-epochs"
    """They differ, and have too few epochs to tell whether that is chance."""


class SeriesComparison(TypedDict):
    """How one series of two histories, a and b, differs. The last three are of the series that are judged alone."""

    largest_difference: float
    at_epoch: int
    end_difference: float
    """The mean of b - a over the last third."""
    floor: NotRequired[float]
    """What another seed changes, whatever the curves' own noise."""
    tolerance: NotRequired[float]
    """What chance explains of the difference over the last third."""
    share_within: NotRequired[float]
    """The part of epochs that lie within chance of each other."""


class Comparison(TypedDict):
    """Two histories compared; figures that are not finite are None."""

    agreement: str
    """A value of Agreement, or what the service says instead while one of them is not complete."""
    sentence: str
    epochs: list[int]
    """How many epochs each has."""
    first_difference: int | None
    """The first epoch that is not the same to the bit."""
    series: dict[str, SeriesComparison]


class Chance(TypedDict):
    """The part of the difference between two curves that chance explains: see SeriesComparison."""

    floor: float
    tolerance: float
    share_within: float


def agreement(history_a: Sequence[EpochMetrics], history_b: Sequence[EpochMetrics]) -> Comparison:
    """Compare two histories epoch by epoch."""
    pairs = _pair(history_a, history_b)
    lengths = [len(history_a), len(history_b)]
    series = {name: found for name in COMPARED if (found := _compare(pairs, name)) is not None}
    first = next((a.epoch for a, b in pairs if not all(_same(getattr(a, n), getattr(b, n)) for n in COMPARED)), None)
    same_epochs = lengths[0] == lengths[1] == len(pairs) > 0
    if same_epochs and first is None:
        result, sentence = Agreement.BIT_IDENTICAL, f"All {len(pairs)} epochs agree to the bit."
    elif same_epochs and len(pairs) < FEWEST_EPOCHS and _same_finite(pairs) and not _is_close(series):
        result, sentence = Agreement.TOO_FEW_EPOCHS, _few_sentence(series, len(pairs), first)
    elif same_epochs and _is_noise(pairs, series):
        result, sentence = Agreement.WITHIN_NOISE, _noise_sentence(series, first)
    else:
        result, sentence = Agreement.DIFFERENT, _difference_sentence(lengths, pairs, series, first)
    comparison: Comparison = finite(
        {
            "agreement": str(result),
            "sentence": sentence,
            "epochs": lengths,
            "first_difference": first,
            "series": series,
        }
    )
    return comparison


def _pair(history_a: Sequence[EpochMetrics], history_b: Sequence[EpochMetrics]) -> Pairs:
    others = {metrics.epoch: metrics for metrics in history_b}
    return [(metrics, others[metrics.epoch]) for metrics in history_a if metrics.epoch in others]


def _same(one: float | None, other: float | None) -> bool:
    """Whether two values are the same number; missing and NaN count as equal."""
    missing = [value is None or math.isnan(value) for value in (one, other)]
    return all(missing) or (not any(missing) and one == other)


def _compare(pairs: Pairs, name: str) -> SeriesComparison | None:
    """One series' differences; None when no epoch has it in both."""
    rows = [(a.epoch, getattr(a, name), getattr(b, name)) for a, b in pairs]
    rows = [(epoch, x, y) for epoch, x, y in rows if _finite(x) and _finite(y)]
    if not rows:
        return None
    epochs = [row[0] for row in rows]
    one, other = (np.array([row[k] for row in rows], dtype=np.float64) for k in (1, 2))
    gap = other - one
    largest = int(np.argmax(np.abs(gap)))
    end = max(1, len(gap) // 3)
    found: SeriesComparison = {
        "largest_difference": float(abs(gap[largest])),
        "at_epoch": epochs[largest],
        "end_difference": float(gap[-end:].mean()),
    }
    if name in JUDGED:
        images = _image_noise(name, one, other, end, pairs)
        return {**found, **_chance(one, other, floor=_floor(name, one, other), images=images, end=end)}
    return found


def _image_noise(name: str, one: Array, other: Array, end: int, pairs: Pairs) -> float:
    """The standard deviation of the difference of two runs that so few images cause, at the end and at any epoch.

    Both are measured on the same images, so it does not average out over epochs. The loss of one image varies about as
    much as it is large.
    """
    accuracy = name.replace("loss", "accuracy")
    measured = [getattr(metrics, accuracy) for pair in pairs for metrics in pair]
    size = counted_images(np.array([value for value in measured if _finite(value)], dtype=np.float64))
    if not size:
        return 0.0
    level = float(np.mean(np.concatenate([one[-end:], other[-end:]])))
    spread = math.sqrt(min(max(level * (1 - level), 0.0), 0.25)) if name.endswith("accuracy") else abs(level)
    return spread * math.sqrt(2 * (1 - SHARED) / size)


def _chance(one: Array, other: Array, *, floor: float, images: float, end: int) -> Chance:
    """What chance explains of the difference at the end, and the part of epochs that are within it."""
    n = len(one)
    sigmas = SIGMAS * (1 + 3 / n)  # the noise of a short curve is itself uncertain
    noises: list[Noise] = [estimate_noise(values) for values in (one, other)]
    spread = np.sqrt(noises[0].sigma ** 2 + noises[1].sigma ** 2)
    carried = max(noise.correlation for noise in noises)
    error = float(np.mean(spread[-end:])) * math.sqrt((1 + carried) / (1 - carried) / end)
    # While a curve moves, a head start is a large difference.
    mean, reach = (one + other) / 2, max(1, round(HEAD_START * n))
    padded = np.pad(mean, reach, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    steep = (around.max(axis=1) - around.min(axis=1)) / 2
    moved = abs(float(mean[-end:].mean() - mean[-2 * end : -end].mean())) if n >= 2 * end else 0.0
    within = np.abs(other - one) <= sigmas * np.hypot(spread, images) + floor + steep
    tolerance = sigmas * math.hypot(error, images) + floor + 3 * HEAD_START * moved
    return {"floor": floor, "tolerance": tolerance, "share_within": float(np.mean(within))}


def _floor(name: str, one: Array, other: Array) -> float:
    if name.endswith("accuracy"):
        return FLOOR_ACCURACY
    end = max(1, len(one) // 3)
    return FLOOR_LOSS * float(np.mean(np.abs(np.concatenate([one[-end:], other[-end:]]))))


def _same_finite(pairs: Pairs) -> bool:
    """Whether both have finite losses in the same epochs."""
    broken = [[_finite(m.train_loss) or _finite(m.val_loss) for m in pair] for pair in pairs]
    return all(one == other for one, other in broken)


def _is_close(series: dict[str, SeriesComparison]) -> bool:
    """Whether no epoch differs by more than a tenth of what another seed does at the end of a long run."""
    judged = [series[name] for name in JUDGED if name in series]
    return bool(judged) and all(found["largest_difference"] <= found["floor"] / 10 for found in judged)


def _is_noise(pairs: Pairs, series: dict[str, SeriesComparison]) -> bool:
    judged = [series[name] for name in JUDGED if name in series]
    return (
        bool(judged)
        and _same_finite(pairs)
        and all(abs(found["end_difference"]) <= found["tolerance"] and found["share_within"] >= 0.9 for found in judged)
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _few_sentence(series: dict[str, SeriesComparison], epochs: int, first: int | None) -> str:
    judged = [name for name in JUDGED if name in series]
    difference = f": {_figures(judged[0], series[judged[0]])[0]} at the end" if judged else ""
    few = f"{plural(epochs, 'epoch')} {'is' if epochs == 1 else 'are'} too few to tell whether that is chance"
    return f"They differ from epoch {first} on{difference}. {few}; it takes {FEWEST_EPOCHS}."


def _noise_sentence(series: dict[str, SeriesComparison], first: int | None) -> str:
    name = next(name for name in JUDGED if name in series)
    difference, tolerance = _figures(name, series[name])
    return f"They differ from epoch {first} on, by chance: {difference} at the end, where chance explains {tolerance}."


def _difference_sentence(
    lengths: list[int], pairs: Pairs, series: dict[str, SeriesComparison], first: int | None
) -> str:
    if lengths[0] != lengths[1]:
        return f"One history has {lengths[0]} epochs and the other {lengths[1]}."
    if not pairs or not any(name in series for name in JUDGED):
        return "The histories have no epoch with figures in common."
    judged = {name: series[name] for name in JUDGED if name in series}
    worst = max(judged, key=lambda name: abs(judged[name]["end_difference"]) / max(judged[name]["tolerance"], 1e-12))
    difference, tolerance = _figures(worst, judged[worst])
    if abs(judged[worst]["end_difference"]) > judged[worst]["tolerance"]:
        return f"They differ from epoch {first} on: {difference} at the end, where chance explains {tolerance}."
    apart = min(judged, key=lambda name: float(judged[name]["share_within"]))
    if judged[apart]["share_within"] < 0.9:
        share = 100 * (1 - judged[apart]["share_within"])
        return (
            f"They differ from epoch {first} on: in {share:.0f}% of the epochs {apart} differs by more than "
            "chance explains."
        )
    return f"They differ from epoch {first} on: one has finite losses where the other has none."


def _figures(name: str, found: SeriesComparison) -> tuple[str, str]:
    difference, tolerance = abs(found["end_difference"]), found["tolerance"]
    words = name.replace("val_", "validation ").replace("train_", "training ")
    if name.endswith("accuracy"):
        return f"{words} differs by {100 * difference:.2f} points", f"up to {100 * tolerance:.2f}"
    return f"{words} differs by {difference:.3g}", f"up to {tolerance:.3g}"
