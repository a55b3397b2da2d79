"""Findings on collapses: accuracy that falls back towards chance, to the end of the run or for some epochs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curves.statistics import Array, carried_noise, normal_quantile
from models.findings import Finding, FindingCode, Severity
from models.spec.experiment import ExperimentSpec
from models.text import number, percent, plural
from models.verdict.chance import validation_size
from models.verdict.curves import Curve, Curves

LOST = 1 / 3
"""A collapse loses at least this part of what was gained over chance."""
FALSE_ALARMS = 0.005
"""How often noise alone may look like a collapse, over a whole curve of any length."""
WIDTHS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
"""Epochs over which the fallen level is averaged: one where noise is small, more where single epochs tell nothing."""
PEAK_WIDTH = 3


@dataclass(frozen=True)
class Collapse:
    """A fall from `peak` that begins after epoch `begins`, is deepest at `bottom` and lasts to the end or recovers."""

    begins: int
    bottom: int
    recovered: int | None
    peak: float
    low: float
    lost: float


@dataclass(frozen=True)
class _Scale:
    """An accuracy curve seen in means of `width` epochs."""

    width: int
    means: Array
    """Of the epochs that end at an index; of fewer at the start."""
    peaks: Array
    """The highest mean before each of those windows."""
    deep: NDArray[np.bool_]
    """Whether a window lies a third of the gain below its peak, and further than noise explains."""


def find_collapses(curves: Curves) -> list[Collapse]:
    """Falls that lose a third or more of the gain over chance and stand out of the noise, in order.

    The highest of many noisy means is high, and the lowest low, the more so the longer the curve. So a fall has to be
    as deep as the two of them differ by noise alone in one curve of FALSE_ALARMS, whatever its length.
    """
    accuracy = curves.val_accuracy
    if len(accuracy) < 3:
        return []
    noise, carried = _noise(accuracy)
    widths = [width for width in WIDTHS if width == 1 or 3 * width <= len(accuracy)]
    scales = [_look(accuracy.values, curves.chance, noise, carried, width) for width in widths]
    found: list[Collapse] = []
    index = recovered = 0
    suspect = np.flatnonzero(np.any([scale.deep for scale in scales], axis=0))
    while (later := suspect[np.searchsorted(suspect, index) :]).size:
        index = int(later[0])
        whole = (scale for scale in scales if index - scale.width + 1 >= recovered)  # of epochs after the last fall
        hit = next((scale for scale in whole if scale.deep[index]), None)
        if hit is None:
            index += 1
            continue
        end = _recovery(accuracy.values, hit, curves.chance, index)
        found.append(_describe(accuracy, hit, curves.chance, index, end))
        index = recovered = max(end, index + 1)
    return found


def _noise(accuracy: Curve) -> tuple[float, float]:
    """Standard deviation from epoch to epoch, never below what counting so many images has, and its carry-over."""
    noise, carried = carried_noise(accuracy.values)
    size = validation_size(accuracy)
    if size:
        level = float(np.clip(np.median(accuracy.values), 0.02, 0.98))
        noise = max(noise, float(np.sqrt(level * (1 - level) / size)))
    return noise, carried


def _look(values: Array, chance: float, noise: float, carried: float, width: int) -> _Scale:
    n = len(values)
    means = _trailing_means(values, width)
    before = max(width, min(PEAK_WIDTH, n))
    levels = _trailing_means(values, before) if before > 3 else _median3(values)
    shifted = np.concatenate([np.full(width, -np.inf), levels[:-width]])
    peaks = np.maximum.accumulate(shifted)
    gain = peaks - chance
    reach = normal_quantile(1 - FALSE_ALARMS / (2 * n)) * noise
    doubt = reach * (_shrinkage(width, carried) + _shrinkage(before, carried))
    fallen = peaks - means
    least = np.maximum(LOST * gain, doubt)
    deep = np.isfinite(peaks) & (fallen >= least) & (gain >= max(0.05, 0.2 * chance))
    deep[: width - 1] = False
    return _Scale(width, means, peaks, deep)


def _shrinkage(width: int, carried: float) -> float:
    """The standard deviation of a mean of `width` epochs, over that of one."""
    return float(np.sqrt(min(width, (1 + carried) / (1 - carried)) / width))


def _recovery(values: Array, scale: _Scale, chance: float, index: int) -> int:
    """The first epoch from which a mean of as many is back to half of the loss; the curve's length if none is."""
    peak = scale.peaks[index]
    wanted = peak - LOST / 2 * (peak - chance)
    for place in range(index + 1, len(values) - scale.width + 1):
        if float(values[place : place + scale.width].mean()) > wanted:
            return place
    return len(values)


def _describe(accuracy: Curve, scale: _Scale, chance: float, index: int, end: int) -> Collapse:
    peak = float(scale.peaks[index])
    calm = _median3(accuracy.values) if scale.width <= PEAK_WIDTH else scale.means
    held = np.flatnonzero(calm[: max(index, 1)] >= peak - 0.15 * (peak - chance))
    begins = int(held[-1]) if len(held) else max(index - scale.width, 0)
    stretch = accuracy.values[begins + 1 : end]
    if scale.width == 1:
        bottom = begins + 1 + int(np.argmin(stretch))
        low = float(accuracy.values[bottom])
    else:
        bottom = index + int(np.argmin(scale.means[index:end]))
        low = float(scale.means[bottom])
    if end == len(accuracy) and end - index >= 3:
        low = float(np.median(accuracy.values[-max(3, scale.width) :]))
    return Collapse(
        accuracy.epoch(begins),
        accuracy.epoch(bottom),
        accuracy.epoch(end) if end < len(accuracy) else None,
        peak,
        low,
        (peak - low) / max(peak - chance, 1e-9),
    )


def _trailing_means(values: Array, width: int) -> Array:
    """The mean of each value and the `width` - 1 before it, of fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    means: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _median3(values: Array) -> Array:
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1))


def report_collapses(curves: Curves, collapses: list[Collapse], spec: ExperimentSpec) -> list[Finding]:
    """A collapse that lasts is a problem; those that were recovered from are reported together."""
    lasting = [collapse for collapse in collapses if collapse.recovered is None]
    passing = [collapse for collapse in collapses if collapse.recovered is not None]
    findings = [_lasting(curves, collapse, spec) for collapse in lasting]
    if passing:
        findings.append(_passing(passing, lasting=bool(lasting)))
    return findings


def _lasting(curves: Curves, collapse: Collapse, spec: ExperimentSpec) -> Finding:
    one = (
        " It is the last epoch only, so it may be temporary."
        if collapse.bottom == curves.last_epoch and (collapse.begins >= curves.last_epoch - 1)
        else ""
    )
    return Finding(
        FindingCode.COLLAPSE,
        Severity.PROBLEM,
        f"The network collapsed: from epoch {collapse.begins + 1} on accuracy fell from {percent(collapse.peak)} to "
        f"{percent(collapse.low)}, losing {percent(min(collapse.lost, 1))} of what it had learned beyond guessing "
        f"({percent(curves.chance)}).{one}",
        epochs=[collapse.begins + 1, collapse.bottom],
        values={
            "begins": collapse.begins + 1,
            "peak": collapse.peak,
            "end": collapse.low,
            "lost": round(collapse.lost, 4),
            "recovered": None,
        },
        suggestion=(
            f"Use the best weights. Lower the learning rate ({number(spec.optimizer.lr)} here) or let a schedule do it "
            "(exponential, cosine), clip the gradient, and stop early."
        ),
    )


def _passing(passing: list[Collapse], *, lasting: bool) -> Finding:
    worst = max(passing, key=lambda collapse: collapse.lost)
    times = "" if len(passing) == 1 else f" It did so {len(passing)} times; this is the deepest."
    took = (worst.recovered or worst.bottom) - worst.begins
    return Finding(
        FindingCode.PASSING_COLLAPSE if lasting else FindingCode.COLLAPSE,
        Severity.WARNING,
        f"Accuracy fell from {percent(worst.peak)} to {percent(worst.low)} at epoch {worst.bottom} and had recovered "
        f"by epoch {worst.recovered}, {plural(took, 'epoch')} later.{times}",
        epochs=sorted({epoch for item in passing for epoch in (item.begins + 1, item.bottom, item.recovered or 0)}),
        values={
            "begins": worst.begins + 1,
            "peak": worst.peak,
            "end": worst.low,
            "lost": round(worst.lost, 4),
            "recovered": worst.recovered,
            "times": len(passing),
        },
        suggestion="Clip the gradient (clip_grad_norm: 1.0) or lower the learning rate: single large steps do this.",
    )
