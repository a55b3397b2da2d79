"""A run's history so far: the metrics of its epochs and its divergences. Verdicts are computed from it."""

from collections.abc import Mapping
from typing import Any

from models.curves.metrics import NAMES, EpochMetrics, values_of
from models.verdict.divergence import Divergence


class RunHistory:
    """The epochs in order, and all divergences, including those after which training resumed at a lower rate."""

    def __init__(self) -> None:
        self.epochs: list[EpochMetrics] = []
        self.divergences: list[Divergence] = []

    def go_back_to(self, epoch: int) -> None:
        """Drop this epoch and all after it, because training resumes at its start or within it."""
        self.epochs = [metrics for metrics in self.epochs if metrics.epoch < epoch]

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {
            "epochs": [dict(zip(NAMES, values_of(metrics), strict=True)) for metrics in self.epochs],
            "divergences": [{**vars(found), "grad_norms": list(found.grad_norms)} for found in self.divergences],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved history."""
        self.epochs = [EpochMetrics(**metrics) for metrics in state["epochs"]]
        self.divergences = [
            Divergence(**{**found, "grad_norms": tuple(found["grad_norms"])}) for found in state["divergences"]
        ]
