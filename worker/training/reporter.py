"""What a run has to say about itself: its history, what diverged, seconds per phase, and the verdict on all of it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.curves.metrics import NAMES, EpochMetrics, values_of
from models.spec.experiment import ExperimentSpec
from models.verdict import judge
from models.verdict.divergence import Divergence
from models.verdict.filters import FilterHealth
from worker.training.sink import MetricSink

Kernels = Mapping[int, NDArray[np.floating[Any]]]
"""The first layer's after the epochs that are kept."""

PATIENCE = 100
"""A verdict is given while training only when the last one's time, so many times, has passed: it costs 1% at most."""
GROWTH = 20
"""And only when the history has grown by a part in so many since: all verdicts of a run together cost as much as so
many of its last one, so the cost grows with the number of epochs and not with its square (docs/benchmarks.md).
"""


class Reporter:
    """Keeps the history and gives verdicts to the sink."""

    def __init__(
        self, spec: ExperimentSpec, num_classes: int, sink: MetricSink, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.spec = spec
        self.num_classes = num_classes
        self.sink = sink
        self.clock = clock
        self.history: list[EpochMetrics] = []
        self.divergences: list[Divergence] = []
        self.seconds: dict[str, float] = {}
        self.judge_again_at = 0.0
        self.judged_epochs = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of this block to a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def append(self, metrics: EpochMetrics) -> None:
        """Take an epoch and pass it on."""
        self.history.append(metrics)
        self.sink.append_epoch(metrics)

    def judge(self, kernels: Callable[[], Kernels]) -> None:
        """Give a verdict while training goes on, unless the last one was given a moment or a few epochs ago."""
        began = self.clock()
        grown = len(self.history) - self.judged_epochs
        if began >= self.judge_again_at and GROWTH * grown >= self.judged_epochs:
            self.judged_epochs = len(self.history)
            self._judge(kernels(), None, finished=False)
            ended = self.clock()
            self.judge_again_at = ended + PATIENCE * (ended - began)

    def judge_finally(self, kernels: Kernels, filters: FilterHealth | None) -> None:
        """Give the last verdict, with what is known of the network's filters."""
        self._judge(kernels, filters, finished=True)

    def _judge(self, kernels: Kernels, filters: FilterHealth | None, *, finished: bool) -> None:
        verdict = judge(
            self.history,
            spec=self.spec,
            num_classes=self.num_classes,
            kernels=kernels,
            filters=filters,
            divergences=self.divergences,
            finished=finished,
        )
        self.sink.verdict(verdict)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {
            "history": [dict(zip(NAMES, values_of(metrics), strict=True)) for metrics in self.history],
            "divergences": [{**vars(found), "grad_norms": list(found.grad_norms)} for found in self.divergences],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a saved history."""
        self.history = [EpochMetrics(**metrics) for metrics in state["history"]]
        self.judged_epochs = 0
        self.divergences = [
            Divergence(**{**found, "grad_norms": tuple(found["grad_norms"])}) for found in state["divergences"]
        ]
