"""Histories for tests: the report's curves, and EpochMetrics built from plain lists."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from models.curves.metrics import EpochMetrics

Series = Sequence[float | None]


def make_history(
    val_loss: Series | None = None,
    val_accuracy: Series | None = None,
    train_loss: Series | None = None,
    train_accuracy: Series | None = None,
    lr: Series | None = None,
    seconds: float = 1.0,
) -> list[EpochMetrics]:
    """EpochMetrics from plain lists; a series that is not given, or None in one, is NaN."""
    given = [val_loss, val_accuracy, train_loss, train_accuracy]
    length = max(len(series) for series in given if series is not None)

    def at(series: Series | None, index: int) -> float:
        value = None if series is None else series[index]
        return math.nan if value is None else value

    return [
        EpochMetrics(
            epoch=index + 1,
            train_loss=at(train_loss, index),
            train_accuracy=at(train_accuracy, index),
            val_loss=at(val_loss, index),
            val_accuracy=at(val_accuracy, index),
            lr=at(lr, index),
            grad_norm=None,
            seconds=seconds,
            images_per_second=1000.0,
            peak_memory_mb=100.0,
        )
        for index in range(length)
    ]


def notebook_history(name: str) -> list[EpochMetrics]:
    """One of the report's curves."""
    curve = json.loads(Path(__file__).with_name("notebook_histories.json").read_text())["histories"][name]
    return make_history(curve["val_loss"], curve["val_accuracy"], curve["train_loss"])
