"""The learning rate as a pure function of where training is.

Every schedule is a factor on the optimizer's rate. All but `plateau` are functions of the step alone: nothing to save,
nothing to restore, and a resumed run has the rate it would have had.
"""

import math
from typing import Any

import torch

from models.spec.training import (
    CosineSpec,
    ExponentialSpec,
    LrSchedulerSpec,
    MultiStepSpec,
    OneCycleSpec,
    PlateauSpec,
    StepSpec,
)


def warmup_factor(spec: LrSchedulerSpec, step: int, steps_per_epoch: int) -> float:
    """The linear way up at the start, from `warmup_start_factor` to 1; 1 afterwards."""
    if isinstance(spec, OneCycleSpec) or spec.warmup_epochs == 0:
        return 1.0
    done = step / (spec.warmup_epochs * steps_per_epoch)
    return spec.warmup_start_factor + (1 - spec.warmup_start_factor) * min(done, 1.0)


def decay_factor(spec: LrSchedulerSpec, step: int, steps_per_epoch: int, epochs: int, base_lr: float) -> float:
    """The schedule itself without its warm-up, as torch's scheduler of that name has it. `step` counts from 0."""
    epochs_done = step // steps_per_epoch
    last_step = max(1, steps_per_epoch * epochs - 1)
    if isinstance(spec, ExponentialSpec):
        return spec.gamma**epochs_done
    if isinstance(spec, StepSpec):
        return spec.gamma ** (epochs_done // spec.step_size)
    if isinstance(spec, MultiStepSpec):
        return spec.gamma ** sum(epochs_done >= milestone for milestone in spec.milestones)
    if isinstance(spec, CosineSpec):
        lowest = min(1.0, spec.eta_min / base_lr)
        first = min(last_step - 1, round(spec.warmup_epochs * steps_per_epoch))  # the cosine begins after the warm-up
        done = max(0, step - first) / max(1, last_step - first)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
    if isinstance(spec, OneCycleSpec):
        return _one_cycle(spec, step, last_step)
    return 1.0


def _one_cycle(spec: OneCycleSpec, step: int, last_step: int) -> float:
    """Up from 1/div_factor to 1, down to 1/(div_factor * final_div_factor): torch's OneCycleLR with two phases."""
    peak = spec.pct_start * (last_step + 1) - 1
    start, end = 1 / spec.div_factor, 1 / (spec.div_factor * spec.final_div_factor)
    if step <= peak:
        return _anneal(spec.anneal, start, 1.0, step / peak if peak > 0 else 1.0)
    return _anneal(spec.anneal, 1.0, end, (step - peak) / (last_step - peak) if last_step > peak else 1.0)


def _anneal(shape: str, start: float, end: float, done: float) -> float:
    done = min(max(done, 0.0), 1.0)
    if shape == "linear":
        return start + (end - start) * done
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


class Schedule:
    """Sets the learning rate before every step."""

    def __init__(
        self,
        spec: LrSchedulerSpec,
        optimizer: torch.optim.Optimizer,
        *,
        steps_per_epoch: int,
        epochs: int,
        base_lr: float,
    ) -> None:
        self.spec = spec
        self.optimizer = optimizer
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs
        self.base_lr = base_lr
        self.scale = 1.0
        """A tenth for each time that divergence lowered the rate."""
        self.plateau_factor = 1.0
        self.plateau_best = math.inf
        self.plateau_waited = 0

    def lr_at(self, step: int) -> float:
        """The head's rate at a step that is counted from 0 over the whole training."""
        decay = decay_factor(self.spec, step, self.steps_per_epoch, self.epochs, self.base_lr)
        warmup = warmup_factor(self.spec, step, self.steps_per_epoch)
        return self.base_lr * self.scale * self.plateau_factor * decay * warmup

    def apply(self, step: int) -> None:
        """Give every group its rate for this step."""
        factor = self.lr_at(step) / self.base_lr
        for group in self.optimizer.param_groups:
            lr = group["base_lr"] * factor
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)  # a CUDA graph reads it there
            else:
                group["lr"] = lr

    def end_epoch(self, val_loss: float) -> bool:
        """Take the epoch's validation loss; true if it has lowered the rate (plateau only)."""
        if not isinstance(self.spec, PlateauSpec):
            return False
        if val_loss < self.plateau_best * (1 - self.spec.threshold):
            self.plateau_best, self.plateau_waited = val_loss, 0
            return False
        self.plateau_waited += 1
        if self.plateau_waited <= self.spec.patience:
            return False
        lowest = min(1.0, self.spec.min_lr / (self.base_lr * self.scale))
        before, self.plateau_waited = self.plateau_factor, 0
        self.plateau_factor = max(self.plateau_factor * self.spec.factor, lowest)
        return self.plateau_factor < before

    def state_dict(self) -> dict[str, Any]:
        """What the step alone does not tell."""
        return {
            "scale": self.scale,
            "plateau_factor": self.plateau_factor,
            "plateau_best": self.plateau_best,
            "plateau_waited": self.plateau_waited,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what was saved."""
        self.scale = state["scale"]
        self.plateau_factor = state["plateau_factor"]
        self.plateau_best = state["plateau_best"]
        self.plateau_waited = state["plateau_waited"]
