"""Accuracy that falls back towards chance, for good or for a while."""

from dataclasses import dataclass

import numpy as np

from models.curve_statistics import Array, typical_wobble
from models.spec.experiment import ExperimentSpec
from worker.training.verdict.curves import Curve, Curves
from worker.training.verdict.finding import Finding, Severity, make_finding, number, percent, plural

LOST = 1 / 3
"""A collapse loses at least this part of what was gained over chance."""


@dataclass(frozen=True)
class Collapse:
    """A fall from `peak` that begins after epoch `begins`, is deepest at `bottom` and lasts to the end or recovers."""

    begins: int
    bottom: int
    recovered: int | None
    peak: float
    low: float
    lost: float


def find_collapses(curves: Curves) -> list[Collapse]:
    """Falls that lose a third or more of the gain over chance and stand far out of the noise, in order."""
    accuracy = curves.val_accuracy
    if len(accuracy) < 3:
        return []
    calm = _median3(accuracy.values)
    noise = typical_wobble(accuracy.values)
    peaks = np.maximum.accumulate(calm)
    gain = np.maximum(peaks - curves.chance, 1e-9)
    fallen = peaks - accuracy.values
    deep = (fallen >= LOST * gain) & (fallen >= 4 * noise) & (gain >= max(0.05, 0.2 * curves.chance))
    found: list[Collapse] = []
    index = 0
    while index < len(accuracy):
        if not deep[index]:
            index += 1
            continue
        back = np.flatnonzero(fallen[index:] < LOST / 2 * gain[index:])
        end = index + int(back[0]) if len(back) else len(accuracy)
        found.append(_describe(accuracy, calm, peaks, curves.chance, index, end))
        index = end
    return found


def _describe(accuracy: Curve, calm: Array, peaks: Array, chance: float, start: int, end: int) -> Collapse:
    peak = float(peaks[start])
    held = np.flatnonzero(calm[:start] >= peak - 0.15 * (peak - chance))
    begins = int(held[-1]) if len(held) else max(start - 1, 0)
    bottom = start + int(np.argmin(accuracy.values[start:end]))
    low = (
        float(np.median(accuracy.values[-3:]))
        if end == len(accuracy) and end - start >= 3
        else float(accuracy.values[bottom])
    )
    return Collapse(
        accuracy.epoch(begins),
        accuracy.epoch(bottom),
        accuracy.epoch(end) if end < len(accuracy) else None,
        peak,
        low,
        (peak - low) / max(peak - chance, 1e-9),
    )


def _median3(values: Array) -> Array:
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1))


def report_collapses(curves: Curves, collapses: list[Collapse], spec: ExperimentSpec | None) -> list[Finding]:
    """A collapse that lasts is a problem; those that were recovered from are reported together."""
    lasting = [collapse for collapse in collapses if collapse.recovered is None]
    passing = [collapse for collapse in collapses if collapse.recovered is not None]
    findings = [_lasting(curves, collapse, spec) for collapse in lasting]
    if passing:
        findings.append(_passing(passing, lasting=bool(lasting)))
    return findings


def _lasting(curves: Curves, collapse: Collapse, spec: ExperimentSpec | None) -> Finding:
    rate = f" ({number(spec.optimizer.lr)} here)" if spec else ""
    one = (
        " It is the last epoch only, so it may be a passing dip."
        if collapse.bottom == curves.last_epoch and (collapse.begins >= curves.last_epoch - 1)
        else ""
    )
    return make_finding(
        "collapse",
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
            f"Use the best weights. Lower the learning rate{rate} or let a schedule do it (exponential, cosine), "
            "clip the gradient, and stop early."
        ),
    )


def _passing(passing: list[Collapse], *, lasting: bool) -> Finding:
    worst = max(passing, key=lambda collapse: collapse.lost)
    times = "" if len(passing) == 1 else f" It did so {len(passing)} times; this is the deepest."
    took = (worst.recovered or worst.bottom) - worst.begins
    return make_finding(
        "passing-collapse" if lasting else "collapse",
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
