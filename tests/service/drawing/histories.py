"""Histories to draw in tests."""

import math
from dataclasses import replace
from typing import Any

from models.curves.metrics import EpochMetrics
from service.drawing.series import CurveData


def history(epochs: int, **changes: Any) -> list[EpochMetrics]:
    """A plain learning curve; each change is a value, or a function of the epoch, for one series."""
    points = []
    for epoch in range(1, epochs + 1):
        point = EpochMetrics(
            epoch=epoch,
            train_loss=0.2 + 2 / (epoch + 1),
            train_accuracy=1 - 1 / (epoch + 1),
            val_loss=0.5 + 2 / (epoch + 1) + 0.001 * epoch,
            val_accuracy=0.9 - 1 / (epoch + 1),
            lr=0.01,
            grad_norm=1.0,
            seconds=7.5,
            images_per_second=1000.0,
            peak_memory_mb=100.0,
        )
        values = {name: change(epoch) if callable(change) else change for name, change in changes.items()}
        points.append(replace(point, **values))
    return points


def run(number: int, epochs: int, name: str = "three blocks", verdict: Any = None, **changes: Any) -> CurveData:
    """An experiment with such a history."""
    return CurveData(number, name, history(epochs, **changes), verdict)


def nan_after(epoch: int, value: float) -> Any:
    """A change for `history`: this value at first, NaN after that epoch."""
    return lambda now: value if now <= epoch else math.nan
