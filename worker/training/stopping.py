"""Which epoch is the best so far, and whether it is time to stop."""

from dataclasses import asdict, dataclass, field
from typing import Any

from models.metrics import EpochMetrics
from models.spec.training import EarlyStoppingSpec


@dataclass
class Best:
    """The epoch whose weights are kept as the best: highest validation accuracy, then lowest validation loss."""

    epoch: int = 0
    val_accuracy: float = -1.0
    val_loss: float = float("inf")

    def take(self, metrics: EpochMetrics) -> bool:
        """Whether this epoch is better than all before it, which makes it the best. NaN is never better."""
        better = metrics.val_accuracy > self.val_accuracy or (
            metrics.val_accuracy == self.val_accuracy and metrics.val_loss < self.val_loss
        )
        if better:
            self.epoch, self.val_accuracy, self.val_loss = metrics.epoch, metrics.val_accuracy, metrics.val_loss
        return better


@dataclass
class EarlyStopping:
    """Counts the epochs in which the watched series has not improved."""

    spec: EarlyStoppingSpec | None
    best: float | None = None
    waited: int = 0

    def take(self, metrics: EpochMetrics) -> bool:
        """Whether to stop after this epoch."""
        if self.spec is None:
            return False
        value = float(getattr(metrics, self.spec.monitor.value))
        gain = 0.0 if self.best is None else self.best - value
        if self.spec.mode == "max":
            gain = -gain
        if self.best is None or gain > self.spec.min_delta:
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        return self.waited >= self.spec.patience


@dataclass
class Judgement:
    """What has been learnt from the epochs so far; part of the checkpoint."""

    stopping: EarlyStopping
    best: Best = field(default_factory=Best)
    stop: bool = False
    """Nothing has improved for as long as the spec waits."""

    def take(self, metrics: EpochMetrics) -> bool:
        """Learn from an epoch; true if it is the best so far."""
        self.stop = self.stopping.take(metrics)
        return self.best.take(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        watching = {"best": self.stopping.best, "waited": self.stopping.waited}
        return {"best": asdict(self.best), "stopping": watching, "stop": self.stop}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what was saved."""
        self.best = Best(**state["best"])
        self.stopping.best, self.stopping.waited = state["stopping"]["best"], state["stopping"]["waited"]
        self.stop = state["stop"]
