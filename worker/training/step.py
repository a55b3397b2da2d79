"""One step of training, in two halves: the gradient of some batches, and what is done with it.

Nothing here waits for the device, so that a GPU can be given the next step before it has done this one, and the whole
can be recorded as a CUDA graph (see graphs.py).
"""

import torch
from torch import Tensor, nn

from worker.training.batches.loader import Part
from worker.training.state import TrainingState


def add_gradient(state: TrainingState, part: Part) -> tuple[Tensor, Tensor]:
    """Add a batch's part of the step's gradient. Returns the outputs and what the batch adds to the step's loss."""
    with state.arithmetic.autocast():
        outputs = state.network(part.batch.images)
        loss = state.objective.part(outputs, part)
    state.arithmetic.backward(loss)
    return outputs.detach(), loss.detach()


@torch.no_grad()
def only_look(state: TrainingState, part: Part) -> Tensor:
    """The outputs for a batch of a step that weighs nothing."""
    with state.arithmetic.autocast():
        outputs: Tensor = state.network(part.batch.images)
    return outputs


def change_weights(state: TrainingState, loss: Tensor) -> Tensor:
    """Change the weights by the gradient, unless it or the loss is not finite. Returns the gradient's norm."""
    state.arithmetic.unscale(state.optimizer)
    norm = gradient_norm(state.parameters, state.clip_grad_norm)
    state.guard.note(loss, norm)
    state.arithmetic.step(state.optimizer)
    state.optimizer.zero_grad(set_to_none=True)
    return norm


def gradient_norm(parameters: list[nn.Parameter], largest: float | None) -> Tensor:
    """The norm of the whole gradient, which is scaled down to `largest` if it is above that."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm, foreach=True)
    return norm
