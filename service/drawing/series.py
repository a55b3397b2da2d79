"""Histories as arrays for drawing: gaps as NaN, cumulative time, best epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from models.curves.metrics import EpochMetrics
    from models.findings import VerdictJson

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CurveData:
    """One experiment to draw: id, name, epochs so far, and the verdict if there is one."""

    id: int
    name: str
    history: "Sequence[EpochMetrics]"
    verdict: "VerdictJson | None" = None
    ended: bool = False
    """Whether the run has ended."""


@dataclass(frozen=True, slots=True)
class Curves:
    """A history as columns. `epochs` counts from 1; missing and non-finite values are NaN."""

    epochs: Floats
    seconds: Floats
    """Seconds since the start, at the end of each epoch."""
    train_loss: Floats
    val_loss: Floats
    train_accuracy: Floats
    val_accuracy: Floats

    def series(self, name: str) -> Floats:
        """A column by its name."""
        values: Floats = getattr(self, name)
        return values


def curves_of(history: "Sequence[EpochMetrics]") -> Curves:
    """The columns of a history."""

    def column(name: str) -> Floats:
        values = np.array([getattr(point, name) for point in history], dtype=np.float64)  # None becomes NaN
        values[~np.isfinite(values)] = np.nan
        return values

    return Curves(
        epochs=column("epoch"),
        seconds=np.cumsum(np.nan_to_num(column("seconds"))),
        train_loss=column("train_loss"),
        val_loss=column("val_loss"),
        train_accuracy=column("train_accuracy"),
        val_accuracy=column("val_accuracy"),
    )


def best_index(values: Floats, *, highest: bool) -> int | None:
    """Return the index of the best value, the first of equal ones; None without a finite value."""
    if not np.isfinite(values).any():
        return None
    return int(np.nanargmax(values) if highest else np.nanargmin(values))


def lone_points(values: Floats) -> NDArray[np.bool_]:
    """Mark isolated finite values, which a line would not show."""
    finite = np.isfinite(values)
    padded = np.concatenate(([False], finite, [False]))
    return finite & ~padded[:-2] & ~padded[2:]


def time_unit(longest_seconds: float) -> tuple[float, str]:
    """Choose the unit of a time axis up to a number of seconds. Returns its length in seconds and its name."""
    if longest_seconds < 180:
        return 1.0, "seconds"
    if longest_seconds < 3 * 3600:
        return 60.0, "minutes"
    return 3600.0, "hours"
