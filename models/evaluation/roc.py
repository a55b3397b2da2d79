"""Receiver operating characteristics: each class against all others, and their average."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation.probabilities import Floats

MAX_POINTS = 200
"""The most points of a curve that is sent or drawn."""


@dataclass(frozen=True)
class RocCurve:
    """True positive rate against false positive rate, from (0, 0) to (1, 1), and the area below."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    area: float


def roc_curve(scores: Floats, positive: NDArray[np.bool_]) -> RocCurve | None:
    """The curve of scores (N,) that should be high where `positive`; None if all or none of the images are.

    A corner a distinct score; images of equal scores are passed in one slanted step.
    """
    num_positive = int(positive.sum())
    if not 0 < num_positive < len(positive):
        return None
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], positive[order]
    last_of_equals = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    true = np.concatenate(([0], np.cumsum(hits)[last_of_equals]))
    false = np.concatenate(([0], 1 + last_of_equals)) - true
    rates = false / (len(positive) - num_positive), true / num_positive
    return RocCurve(*rates, area=float(np.trapezoid(rates[1], rates[0])))


def roc_by_class(probabilities: Floats, labels: NDArray[np.int64]) -> list[RocCurve | None]:
    """One class against the rest, by its probability (N, K). None for a class that has no image, or every one."""
    return [roc_curve(probabilities[:, number], labels == number) for number in range(probabilities.shape[1])]


def macro_curve(curves: list[RocCurve | None]) -> RocCurve | None:
    """The mean of the classes' true positive rates at equal false positive rates; its area is the mean of theirs."""
    known = [curve for curve in curves if curve is not None]
    if not known:
        return None
    at = np.linspace(0, 1, MAX_POINTS + 1)
    # np.interp takes the upper end where a curve rises straight up
    rates = [np.interp(at, curve.false_positive_rate, curve.true_positive_rate) for curve in known]
    mean = np.concatenate(([0.0], np.mean(rates, axis=0)))
    return RocCurve(np.concatenate(([0.0], at)), mean, float(np.mean([curve.area for curve in known])))


def thinned(curve: RocCurve, points: int = MAX_POINTS) -> tuple[Floats, Floats]:
    """A curve by its corners, and at most about `points` of them: evenly along its length, both ends included."""
    x, y = curve.false_positive_rate, curve.true_positive_rate
    straight = np.zeros(len(x), bool)
    straight[1:-1] = (np.diff(x)[:-1] * np.diff(y)[1:]) == (np.diff(x)[1:] * np.diff(y)[:-1])
    x, y = x[~straight], y[~straight]
    if len(x) > points:
        along = np.concatenate(([0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)).clip(0, len(x) - 1))
        x, y = x[kept], y[kept]
    return x, y
