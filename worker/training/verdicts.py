"""Gives verdicts while a run trains: decides when, and limits the time they take."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import Calibration
from models.evaluation.doubts import LabelDoubts
from models.spec.experiment import ExperimentSpec
from models.verdict import judge
from models.verdict.beginning import Beginning
from models.verdict.filters import FilterHealth
from worker.training.history import RunHistory
from worker.training.sink import MetricSink

Kernels = Mapping[int, NDArray[np.floating[Any]]]
"""The first layer's after the epochs that are kept."""

PATIENCE = 100
"""A verdict is given while training only when the last one's time, so many times, has passed: it costs 1% at most."""
GROWTH = 20
"""And only when the history has grown by a part in so many since: all verdicts of a run together cost as much as so
many of its last one, so the cost grows with the number of epochs and not with its square (docs/benchmarks.md).
"""


class Verdicts:
    """Judges a history and gives the verdict to the sink."""

    def __init__(
        self,
        spec: ExperimentSpec,
        num_classes: int,
        history: RunHistory,
        sink: MetricSink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.num_classes = num_classes
        self.history = history
        self.sink = sink
        self.clock = clock
        self.judge_again_at = 0.0
        self.judged_epochs = 0

    def judge_if_due(self, kernels: Callable[[], Kernels]) -> None:
        """Give a verdict during training, unless the last one is too recent, in time or in epochs."""
        began = self.clock()
        grown = len(self.history.epochs) - self.judged_epochs
        if began >= self.judge_again_at and GROWTH * grown >= self.judged_epochs:
            self.judged_epochs = len(self.history.epochs)
            self._judge(kernels(), finished=False)
            ended = self.clock()
            self.judge_again_at = ended + PATIENCE * (ended - began)

    def judge_finished(
        self,
        kernels: Kernels,
        filters: FilterHealth | None,
        calibration: Calibration | None = None,
        doubts: Sequence[LabelDoubts] = (),
        beginning: Beginning | None = None,
    ) -> None:
        """Give the last verdict, with what is known of the network's filters, calibration, labels and beginning."""
        self._judge(kernels, filters, calibration, doubts, beginning, finished=True)

    def _judge(
        self,
        kernels: Kernels,
        filters: FilterHealth | None = None,
        calibration: Calibration | None = None,
        doubts: Sequence[LabelDoubts] = (),
        beginning: Beginning | None = None,
        *,
        finished: bool,
    ) -> None:
        verdict = judge(
            self.history.epochs,
            spec=self.spec,
            num_classes=self.num_classes,
            kernels=kernels,
            filters=filters,
            calibration=calibration,
            doubts=doubts,
            beginning=beginning,
            divergences=self.history.divergences,
            finished=finished,
        )
        self.sink.verdict(verdict)
