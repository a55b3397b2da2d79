"""What a run has done so far: the metrics of its epochs, and its divergences. Verdicts are given on it."""

from collections.abc import Mapping
from typing import Any

from models.curves.metrics import NAMES, EpochMetrics, values_of
from models.verdict.divergence import Divergence


class RunHistory:
    """The epochs in order, and all divergences, those included after which a lower learning rate went on."""

    def __init__(self) -> None:
        self.epochs: list[EpochMetrics] = []
        self.divergences: list[Divergence] = []

    def go_back_to(self, epoch: int) -> None:
        """Training goes on at the start of, or within, this epoch: forget it and all after it."""
        self.epochs = [metrics for metrics in self.epochs if metrics.epoch < epoch]

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint."""
        return {
            "epochs": [dict(zip(NAMES, values_of(metrics), strict=True)) for metrics in self.epochs],
            "divergences": [{**vars(found), "grad_norms": list(found.grad_norms)} for found in self.divergences],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved history."""
        self.epochs = [EpochMetrics(**metrics) for metrics in state["epochs"]]
        self.divergences = [
            Divergence(**{**found, "grad_norms": tuple(found["grad_norms"])}) for found in state["divergences"]
        ]
