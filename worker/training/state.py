"""The state of training: everything that a checkpoint holds so that a resumed run gives the same results."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from worker.training.averaging import AveragedWeights
from worker.training.criterion import Criterion
from worker.training.guard import FiniteGuard
from worker.training.meters import EpochMeters
from worker.training.optimizers import Freezing
from worker.training.precision import MixedPrecision
from worker.training.schedules import Schedule
from worker.training.stopping import BestTracker, EarlyStopping
from worker.training.threads import Place
from worker.training.timing import Clock


@dataclass
class TrainingState:
    """The network, everything that changes it, and the current place in the training."""

    network: nn.Module
    parameters: list[nn.Parameter]
    """Those that are ever trained; the others have no gradient from the start."""
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    criterion: Criterion
    mixed_precision: MixedPrecision
    averaged: AveragedWeights | None
    freezing: Freezing
    finite_guard: FiniteGuard
    early_stopping: EarlyStopping
    meters: EpochMeters
    device: torch.device
    steps_per_epoch: int
    """Steps of the optimizer; with accumulation fewer than batches."""
    max_grad_norm: float | None
    initial_weights: dict[str, Tensor]
    """On the CPU, before the first step: movement is measured from it, and a divergence may return to it."""
    best: BestTracker = field(default_factory=BestTracker)
    epoch: int = 1
    """The epoch that is being trained, from 1."""
    step: int = 0
    """Steps of it that are done."""
    clock: Clock = field(default_factory=Clock)
    buffers: list[Tensor] = field(default_factory=list)
    """The network's buffers (running statistics) at the start of the epoch, or where it was resumed."""

    @property
    def total_steps(self) -> int:
        """Steps done since the start of training."""
        return (self.epoch - 1) * self.steps_per_epoch + self.step

    @property
    def place(self) -> Place:
        """The current place: epoch and step."""
        return Place(self.schedule.times_lowered, self.epoch, self.step)

    def begin_epoch(self, epoch: int) -> None:
        """Move on to the start of an epoch."""
        self.epoch, self.step, self.clock = epoch, 0, Clock()
        self.meters = EpochMeters(self.device)

    def begin_training(self) -> None:
        """Set the network's mode for training in this epoch, and copy its running statistics."""
        self.freezing.set_training_mode(self.epoch)
        self.buffers = [buffer.clone() for buffer in self.network.buffers()]

    @torch.no_grad()
    def restore_buffers(self) -> None:
        """Put the running statistics back to what they were when the epoch began.

        Batch normalisation updates them in the forward pass, before the guard has checked the step.
        """
        for buffer, before in zip(self.network.buffers(), self.buffers, strict=True):
            buffer.copy_(before)

    def measured_weights(self) -> AbstractContextManager[None]:
        """Within this block the network has the weights that are evaluated and saved: the averaged ones, if any."""
        return nullcontext() if self.averaged is None else self.averaged.in_place()

    @contextmanager
    def weights_of(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Within this block the network has these weights."""
        own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(tensors)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors and plain data, which need no unpickling.

        Augmentation and the order of images are functions of seed and epoch (seeds.py); of random states only torch's
        own has to be kept, which dropout draws from.
        """
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.clock.seconds(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "mixed_precision": self.mixed_precision.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "best": self.best.state_dict(),
            "meters": self.meters.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.epoch, self.step, self.clock = state["epoch"], state["step"], Clock(state["seconds"])
        self.network.load_state_dict(state["network"])
        _load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.mixed_precision.load_state_dict(state["mixed_precision"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.early_stopping.load_state_dict(state["early_stopping"])
        self.best.load_state_dict(state["best"])
        self.meters.load_state_dict(state["meters"])
        torch.set_rng_state(state["random"]["cpu"])
        if state["random"]["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load moments and step counts, but keep this run's options (fused, capturable and so on).

    torch would load these options, too. But a run that began on a GPU, with its rates in tensors there for
    CUDA graphs, may resume without graphs or on a CPU.
    """
    own: list[dict[str, Any]] = [
        {name: group[name] for name in ("lr", "fused", "foreach", "capturable") if name in group}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, options in zip(optimizer.param_groups, own, strict=True):
        group.update(options)
