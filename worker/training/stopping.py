"""Which epoch is the best so far, and whether it is time to stop."""

from dataclasses import asdict, dataclass, field
from typing import Any

from models.curves.metrics import EpochMetrics, is_better
from models.spec.training import EarlyStoppingSpec


@dataclass
class Best:
    """The epoch whose weights are kept as the best: the first one of the highest validation accuracy."""

    epoch: int = 0
    val_accuracy: float | None = None

    def take(self, metrics: EpochMetrics) -> bool:
        """Whether this epoch is better than all before it, which makes it the best. NaN is never better."""
        better = is_better("val_accuracy", metrics.val_accuracy, self.val_accuracy)
        if better:
            self.epoch, self.val_accuracy = metrics.epoch, metrics.val_accuracy
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
        self.best = Best(state["best"]["epoch"], state["best"]["val_accuracy"])
        self.stopping.best, self.stopping.waited = state["stopping"]["best"], state["stopping"]["waited"]
        self.stop = state["stop"]
