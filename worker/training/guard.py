"""Notices the first step whose loss or gradient is not finite, before that step touches the weights."""

import math

import torch
from torch import Tensor

from worker.training.batches import Batch


class Diverged(Exception):
    """A loss or gradient that is not finite. The weights are those of before the step."""

    def __init__(self, epoch: int, step: int, what: str, batch: Batch | None) -> None:
        super().__init__(f"the {what} was not finite at step {step} of epoch {epoch}")
        self.epoch = epoch
        self.step = step
        self.what = what
        self.batch = batch


class Guard:
    """Watches every step. On a CPU a figure is there as soon as it is computed, so looking at it costs nothing."""

    def check(self, epoch: int, step: int, loss: Tensor, norm: Tensor, batch: Batch) -> None:
        """Raise Diverged unless this step's loss and gradient are finite. Called before the weights are changed."""
        if not math.isfinite(loss):
            raise Diverged(epoch, step, "loss", batch)
        if not math.isfinite(norm):
            raise Diverged(epoch, step, "gradient", batch)


def gradient_norm(parameters: list[torch.nn.Parameter], largest: float | None) -> Tensor:
    """The norm of the whole gradient, which is scaled down to `largest` if it is above that."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm
