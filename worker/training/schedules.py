"""Learning-rate schedules: the rate as a pure function of the training step.

Every schedule is a factor on the optimizer's rate. All but `plateau` are functions of the step alone: nothing to save,
nothing to restore, and a resumed run has the rate it would have had. A bound (`eta_min`, `min_lr`) is a rate, the same
for every part of the network however its own rate is scaled; it holds a rate up, and never lifts one that is lower.
"""

import math
from typing import Any, assert_never

import torch

from models.spec.training import (
    ConstantSpec,
    CosineSpec,
    ExponentialSpec,
    LrSchedulerSpec,
    MultiStepSpec,
    OneCycleSpec,
    PlateauSpec,
    StepSpec,
    WarmupSpec,
)

LOWERED_BY = 0.1
"""Factor on every rate for each time that divergence lowers it."""


def warmup_factor(spec: LrSchedulerSpec, step: int, steps_per_epoch: int) -> float:
    """The linear warm-up at the start, from `warmup_start_factor` to 1; 1 afterwards, and for schedules without one."""
    if not isinstance(spec, WarmupSpec) or spec.warmup_epochs == 0:
        return 1.0
    done = step / (spec.warmup_epochs * steps_per_epoch)
    return spec.warmup_start_factor + (1 - spec.warmup_start_factor) * min(done, 1.0)


def decay_factor(
    spec: LrSchedulerSpec, step: int, steps_per_epoch: int, epochs: int, peak_lr: float, *, last_step_at_bottom: bool
) -> float:
    """The schedule's factor without warm-up, as torch's scheduler of that name computes it. `step` counts from 0.

    `peak_lr` is the rate that is multiplied. A cosine reaches its minimum after the last step, as torch's
    CosineAnnealingLR does with T_max steps; with `last_step_at_bottom`, at the last step, whose rate may then be 0.
    A spec of a class that has no case here is an AssertionError, never a constant rate.
    """
    epochs_done = step // steps_per_epoch
    last_step = max(1, steps_per_epoch * epochs - 1)
    match spec:
        case ConstantSpec() | PlateauSpec():
            return 1.0  # a plateau is lowered by validation losses: see Schedule.end_epoch
        case ExponentialSpec():
            return spec.gamma**epochs_done
        case StepSpec():
            return spec.gamma ** (epochs_done // spec.step_size)
        case MultiStepSpec():
            return spec.gamma ** sum(epochs_done >= milestone for milestone in spec.milestones)
        case CosineSpec():
            bottom = last_step if last_step_at_bottom else steps_per_epoch * epochs
            return _cosine(spec, step, bottom, steps_per_epoch, peak_lr)
        case OneCycleSpec():
            return _one_cycle(spec, step, last_step)
        case _:
            assert_never(spec)


def _cosine(spec: CosineSpec, step: int, bottom: int, steps_per_epoch: int, peak_lr: float) -> float:
    """Half a cosine from the end of the warm-up to step `bottom`: torch's CosineAnnealingLR."""
    lowest = min(1.0, spec.eta_min / peak_lr)
    first = min(bottom - 1, round(spec.warmup_epochs * steps_per_epoch))
    done = max(0, step - first) / max(1, bottom - first)
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


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
        last_step_at_bottom: bool = False,
        times_lowered: int = 0,
    ) -> None:
        self.spec = spec
        self.optimizer = optimizer
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs
        self.base_lr = base_lr
        self.last_step_at_bottom = last_step_at_bottom
        self.times_lowered = times_lowered
        """How often divergence has lowered the rate to a tenth (`on_divergence: lower_lr`)."""
        self.plateau_factors = [1.0] * len(optimizer.param_groups)
        """One a group: a group with a lower rate comes to `min_lr` earlier."""
        self.plateau_best = math.inf
        self.plateau_waited = 0

    @property
    def scale(self) -> float:
        """The factor by which divergences have lowered all rates."""
        return LOWERED_BY**self.times_lowered

    def lr_at(self, step: int, *, lowered_again: bool = False) -> float:
        """The head's rate at a step that is counted from 0 over the whole training. The head is in the last group.

        With `lowered_again`, the rate after one more divergence.
        """
        scale = LOWERED_BY ** (self.times_lowered + lowered_again)
        return self._lr_at(step, self.base_lr, self.plateau_factors[-1], scale)

    def _lr_at(self, step: int, group_lr: float, plateau_factor: float, scale: float) -> float:
        """What the head's rate would be with the factors of a group whose rate is `group_lr`."""
        decay = decay_factor(
            self.spec,
            step,
            self.steps_per_epoch,
            self.epochs,
            group_lr * scale,
            last_step_at_bottom=self.last_step_at_bottom,
        )
        warmup = warmup_factor(self.spec, step, self.steps_per_epoch)
        return self.base_lr * scale * plateau_factor * decay * warmup

    def apply(self, step: int) -> None:
        """Set every group's rate for this step."""
        for group, plateau_factor in zip(self.optimizer.param_groups, self.plateau_factors, strict=True):
            lr = group["base_lr"] * (self._lr_at(step, group["base_lr"], plateau_factor, self.scale) / self.base_lr)
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)  # a CUDA graph reads it there
            else:
                group["lr"] = lr

    def end_epoch(self, val_loss: float) -> bool:
        """Process the epoch's validation loss; true if the rate is lowered (plateau only)."""
        if not isinstance(self.spec, PlateauSpec):
            return False
        if val_loss < self.plateau_best * (1 - self.spec.threshold):
            self.plateau_best, self.plateau_waited = val_loss, 0
            return False
        self.plateau_waited += 1
        if self.plateau_waited <= self.spec.patience:
            return False
        before, self.plateau_waited = self.plateau_factors, 0
        self.plateau_factors = [
            max(factor * self.spec.factor, min(factor, self.spec.min_lr / (group["base_lr"] * self.scale)))
            for factor, group in zip(before, self.optimizer.param_groups, strict=True)
        ]
        return self.plateau_factors != before

    def state_dict(self) -> dict[str, Any]:
        """The state that is not a function of the step."""
        return {
            "times_lowered": self.times_lowered,
            "plateau_factors": self.plateau_factors,
            "plateau_best": self.plateau_best,
            "plateau_waited": self.plateau_waited,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state. A rate that has been lowered more often since stays that low."""
        self.times_lowered = max(self.times_lowered, state["times_lowered"])
        self.plateau_factors = list(state["plateau_factors"])
        self.plateau_best = state["plateau_best"]
        self.plateau_waited = state["plateau_waited"]
