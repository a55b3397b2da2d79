"""Histories for tests: the report's curves, and EpochMetrics built from plain lists."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.curves.metrics import EpochMetrics
from models.findings import Finding
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from models.verdict import Verdict, judge

Series = Sequence[float | None]
SPEC = parse_spec({"model": "baseline", "epochs": 1000})


def verdict_on(
    history: Sequence[EpochMetrics], *, num_classes: int = 10, spec: ExperimentSpec = SPEC, **more: Any
) -> Verdict:
    """The verdict on a history; of a plain spec that stops nothing early, unless another one is given."""
    return judge(history, num_classes=num_classes, spec=spec, **more)


def findings(verdict: Verdict) -> dict[str, Finding]:
    """A verdict's findings by their code."""
    return {finding.code: finding for finding in verdict.findings}


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
