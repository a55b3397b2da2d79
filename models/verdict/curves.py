"""A history as curves without gaps, and what is known of it from the start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curves.metrics import EpochMetrics
from models.curves.statistics import Array


@dataclass(frozen=True)
class Curve:
    """The finite values of one series, and the epochs (from 1) that they belong to."""

    epochs: NDArray[np.int64]
    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def epoch(self, index: int) -> int:
        """The epoch of a value."""
        return int(self.epochs[index])

    def at(self, epoch: int) -> float | None:
        """The value of an epoch, None where there is none."""
        where = np.flatnonzero(self.epochs == epoch)
        return float(self.values[where[0]]) if len(where) else None

    def around(self, epoch: int, reach: int = 1) -> float:
        """The mean over the epochs at most `reach` away, or the nearest value where there is none."""
        near = np.abs(self.epochs - epoch) <= reach
        return float(self.values[near].mean() if near.any() else self.values[np.argmin(np.abs(self.epochs - epoch))])

    def since(self, epoch: int) -> "Curve":
        """The part from this epoch on."""
        kept = self.epochs >= epoch
        return Curve(self.epochs[kept], self.values[kept])

    def until(self, epoch: int) -> "Curve":
        """The part up to and with this epoch."""
        kept = self.epochs <= epoch
        return Curve(self.epochs[kept], self.values[kept])


@dataclass(frozen=True)
class Curves:
    """All curves of a history."""

    epochs: NDArray[np.int64]
    train_loss: Curve
    train_accuracy: Curve
    val_loss: Curve
    val_accuracy: Curve
    lr: Curve
    seconds: Curve
    num_classes: int
    broken_from: int | None
    """First epoch from which a loss stays non-finite to the end."""

    @property
    def num_epochs(self) -> int:
        """Epochs that were recorded."""
        return len(self.epochs)

    @property
    def last_epoch(self) -> int:
        """The last epoch's number."""
        return int(self.epochs[-1]) if len(self.epochs) else 0

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1 / self.num_classes

    @property
    def guessing_loss(self) -> float:
        """The cross-entropy of giving every class the same probability."""
        return math.log(self.num_classes)

    @property
    def is_short(self) -> bool:
        """Too few epochs to tell a shape from noise."""
        return max(len(self.val_loss), len(self.val_accuracy)) < 4


def in_order(history: Sequence[EpochMetrics]) -> list[EpochMetrics]:
    """The epochs in order; of one that comes twice the last counts."""
    return sorted({metrics.epoch: metrics for metrics in history}.values(), key=lambda metrics: metrics.epoch)


def read_curves(rows: Sequence[EpochMetrics], num_classes: int) -> Curves:
    """Split a history, in order, into curves."""
    epochs = np.array([metrics.epoch for metrics in rows], dtype=np.int64)
    table = {
        name: np.array([_number(getattr(metrics, name)) for metrics in rows], dtype=np.float64)
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
    }
    curves = {name: Curve(epochs[np.isfinite(values)], values[np.isfinite(values)]) for name, values in table.items()}
    return Curves(epochs, **curves, num_classes=max(num_classes, 2), broken_from=_broken_from(epochs, table))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _broken_from(epochs: NDArray[np.int64], table: dict[str, Array]) -> int | None:
    """Where a loss stops being finite for good.

    A loss that was never measured is not broken as long as the other one was; an infinite one is broken in any case.
    """
    if not len(epochs):
        return None
    losses = [table["train_loss"], table["val_loss"]]
    if not any(np.isfinite(values).any() or np.isinf(values).any() for values in losses):
        measured = any(np.isfinite(table[name]).any() for name in ("train_accuracy", "val_accuracy"))
        return int(epochs[0]) if measured else None
    starts = []
    for values in losses:
        finite = np.flatnonzero(np.isfinite(values))
        if (len(finite) or np.isinf(values).any()) and not math.isfinite(values[-1]):
            starts.append(int(epochs[finite[-1] + 1] if len(finite) else epochs[0]))
    return min(starts) if starts else None
