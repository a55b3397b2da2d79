"""One training step in its two halves: forward and backward for each micro-batch, then one step of the optimizer.

Nothing here reads a value from the device. A GPU runs asynchronously: `.item()`, `if tensor` or a copy to the host
would wait for all queued kernels, a millisecond a step, and could not be recorded as a CUDA graph (graphs.py).
"""

import torch
from torch import Tensor, nn

from worker.training.batches.batch import MicroBatch
from worker.training.state import TrainingState


def forward_backward(state: TrainingState, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Add the gradient of a micro-batch to that of its step.

    Returns the logits (N, classes), in the format of autocast, and the micro-batch's part of the step's loss, a scalar.
    Both are detached: what autograd kept of the forward pass is freed here and not when the next step overwrites them.
    """
    with state.mixed_precision.autocast():
        logits: Tensor = state.network(micro_batch.batch.images)  # (N, channels, size, size) -> (N, classes)
        loss = state.criterion.micro_batch_loss(logits, micro_batch)
    # Outside of autocast: each backward operation uses the format that its forward operation was given.
    state.mixed_precision.backward(loss)
    return logits.detach(), loss.detach()


@torch.no_grad()
def forward_only(state: TrainingState, micro_batch: MicroBatch) -> Tensor:
    """The logits (N, classes) of a micro-batch whose step has no gradient, because all its images weigh 0.

    It runs all the same: its images count in the epoch's loss, and dropout draws from the random state as it would.
    """
    with state.mixed_precision.autocast():
        logits: Tensor = state.network(micro_batch.batch.images)
    return logits


def optimizer_step(state: TrainingState, loss: Tensor) -> Tensor:
    """Update the weights from the accumulated gradient and clear it. Returns the gradient's norm before clipping.

    Raises Diverged (at once on a CPU, some steps later on a GPU) if `loss` or the norm is not finite; the weights are
    then still those of before the step.
    """
    state.mixed_precision.unscale(state.optimizer)  # clip_grad_norm is in units of the loss, not of the scaled loss
    grad_norm = clip_grad_norm(state.parameters, state.max_grad_norm)
    state.finite_guard.check(loss, grad_norm)  # before the update: NaN in one weight would spread to all in a step
    state.mixed_precision.step(state.optimizer)
    state.optimizer.zero_grad(set_to_none=True)  # None and not 0: momentum and weight decay skip what has no gradient
    return grad_norm


def clip_grad_norm(parameters: list[nn.Parameter], max_norm: float | None) -> Tensor:
    """The L2 norm over all gradients together, which are scaled down to `max_norm` in place if it is larger.

    As torch.nn.utils.clip_grad_norm_, which cannot leave out the scaling: the norm is recorded for every run, clipped
    or not.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)
    return norm
