"""Tracks the best epoch and decides on early stopping. Both states are part of the checkpoint."""

from dataclasses import asdict, dataclass
from typing import Any

from models.curves.metrics import EpochMetrics, is_better
from models.spec.training import EarlyStoppingSpec


@dataclass
class BestTracker:
    """The epoch whose weights are kept as the best: the first one of the highest validation accuracy."""

    epoch: int = 0
    """0 before the first."""
    val_accuracy: float | None = None

    def update(self, metrics: EpochMetrics) -> bool:
        """Process an epoch; true if it is better than all before it. NaN is never better."""
        better = is_better("val_accuracy", metrics.val_accuracy, self.val_accuracy)
        if better:
            self.epoch, self.val_accuracy = metrics.epoch, metrics.val_accuracy
        return better

    def forget(self) -> None:
        """Reset the best epoch, because its weights are lost: only later epochs count."""
        self.epoch, self.val_accuracy = 0, None

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.epoch, self.val_accuracy = state["epoch"], state["val_accuracy"]


class EarlyStopping:
    """Decides when to stop: after `patience` epochs in a row in which the series has not improved (as Keras has it)."""

    def __init__(self, spec: EarlyStoppingSpec | None) -> None:
        self.spec = spec
        """None never stops."""
        self.best: float | None = None
        self.waited = 0
        """Epochs since the best."""
        self.should_stop = False

    def update(self, metrics: EpochMetrics) -> None:
        """Process an epoch and decide whether to stop."""
        if self.spec is None:
            return
        value = float(getattr(metrics, self.spec.monitor.value))
        gain = 0.0 if self.best is None else self.best - value
        if self.spec.mode == "max":
            gain = -gain
        if self.best is None or gain > self.spec.min_delta:  # false for NaN, which is no improvement
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self.should_stop = self.waited >= self.spec.patience

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data."""
        return {"best": self.best, "waited": self.waited, "should_stop": self.should_stop}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.best, self.waited, self.should_stop = state["best"], state["waited"], state["should_stop"]
