"""Everything that moves while training: what a checkpoint must hold for a resumed run to be the same run."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from worker.training.averaging import AveragedWeights
from worker.training.guard import Guard
from worker.training.objective import Objective
from worker.training.optimizers import Freezing
from worker.training.precision import Arithmetic
from worker.training.schedules import Schedule
from worker.training.stopping import Judgement
from worker.training.tally import Tally

if TYPE_CHECKING:
    from worker.training.graphs import GraphedSteps


@dataclass
class Clock:
    """What an epoch has taken so far, in earlier attempts too."""

    before: float = 0.0
    started: float | None = None

    def start(self) -> None:
        """Go on counting."""
        self.before, self.started = self.seconds(), time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far."""
        return self.before + (0.0 if self.started is None else time.perf_counter() - self.started)


@dataclass
class TrainingState:
    """The network, all that changes it, and the place in the training that has been reached."""

    network: nn.Module
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    objective: Objective
    arithmetic: Arithmetic
    averaged: AveragedWeights | None
    freezing: Freezing
    guard: Guard
    judgement: Judgement
    tally: Tally
    device: torch.device
    steps_per_epoch: int
    clip_grad_norm: float | None
    graphs: "GraphedSteps | None" = None
    """Steps recorded as CUDA graphs, on a GPU."""
    epoch: int = 1
    """The epoch that is being trained, from 1."""
    step: int = 0
    """Steps of it that are done."""
    clock: Clock = field(default_factory=Clock)
    times_lowered: int = 0
    """How often divergence has lowered the learning rate."""
    initial: dict[str, Tensor] = field(default_factory=dict)
    """The weights before the first step: what movement is measured from, and what divergence can go back to."""
    buffers: list[Tensor] = field(default_factory=list)
    """The network's buffers (running statistics) at the start of the epoch, or where it was resumed."""

    @property
    def total_steps(self) -> int:
        """Steps done since the start of training."""
        return (self.epoch - 1) * self.steps_per_epoch + self.step

    def begin_epoch(self, epoch: int) -> None:
        """Move on to the start of an epoch."""
        self.epoch, self.step, self.clock = epoch, 0, Clock()
        self.tally = Tally(self.device)

    def begin_training(self) -> None:
        """Put the network into the mode that this epoch trains in."""
        self.freezing.set_training_mode(self.epoch)
        self.buffers = [buffer.clone() for buffer in self.network.buffers()]

    @torch.no_grad()
    def restore_buffers(self) -> None:
        """Put the running statistics back to what they were when the epoch began."""
        for buffer, before in zip(self.network.buffers(), self.buffers, strict=True):
            buffer.copy_(before)

    def measured_weights(self) -> AbstractContextManager[None]:
        """Within this block the network has the weights that are measured and kept: averaged ones, if there are."""
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
        """Tensors and plain data, nothing that has to be unpickled."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.clock.seconds(),
            "times_lowered": self.times_lowered,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "arithmetic": self.arithmetic.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "judgement": self.judgement.state_dict(),
            "tally": self.tally.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become the run that was saved."""
        self.epoch, self.step, self.clock = state["epoch"], state["step"], Clock(state["seconds"])
        self.times_lowered = state["times_lowered"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.graphs is not None:
            self.graphs.keep_rates_on_device()
        self.arithmetic.load_state_dict(state["arithmetic"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.judgement.load_state_dict(state["judgement"])
        self.tally = Tally(self.device)
        self.tally.load_state_dict(state["tally"])
        torch.set_rng_state(state["random"]["cpu"])
        if state["random"]["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
