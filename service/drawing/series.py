"""Histories as arrays that can be drawn: gaps as NaN, time added up, the best epoch of a curve."""

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
    """One experiment to draw: its number, its name, its epochs so far, and the verdict on them if there is one."""

    id: int
    name: str
    history: "Sequence[EpochMetrics]"
    verdict: "VerdictJson | None" = None
    ended: bool = False
    """Whether no further epoch will come."""


@dataclass(frozen=True, slots=True)
class Curves:
    """A history by columns. `epochs` counts from 1; a value that is missing or not finite is NaN."""

    epochs: Floats
    seconds: Floats
    """Time since the start at the end of each epoch."""
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
    """Where the best value stands, the first of equal ones; None if there is no finite one."""
    if not np.isfinite(values).any():
        return None
    return int(np.nanargmax(values) if highest else np.nanargmin(values))


def lone_points(values: Floats) -> NDArray[np.bool_]:
    """Finite values without a finite neighbour: a line would not show them."""
    finite = np.isfinite(values)
    padded = np.concatenate(([False], finite, [False]))
    return finite & ~padded[:-2] & ~padded[2:]


def time_unit(longest_seconds: float) -> tuple[float, str]:
    """Seconds in the unit that a time axis up to there reads best in, and the unit's name."""
    if longest_seconds < 180:
        return 1.0, "seconds"
    if longest_seconds < 3 * 3600:
        return 60.0, "minutes"
    return 3600.0, "hours"
