"""One epoch of training, and one measurement. What watches them hangs on them: guard, tally, progress, checkpoints."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from worker.training.batches import Batch
from worker.training.guard import gradient_norm
from worker.training.objective import predict
from worker.training.state import TrainingState


def train_epoch(
    state: TrainingState, batches: Iterable[tuple[Batch, float, bool]], after_step: Callable[[], None]
) -> None:
    """Train on the batches. Each comes with its share of the step's images and whether it completes the step."""
    for batch, share, completes in batches:
        with state.arithmetic.autocast():
            outputs = state.network(batch.images)
            loss = state.objective(outputs, batch)
        state.arithmetic.backward(loss if share == 1 else loss * share)
        state.tally.add(outputs, batch)
        if not completes:
            continue
        state.arithmetic.unscale(state.optimizer)
        norm = gradient_norm(state.parameters, state.clip_grad_norm)
        state.guard.check(state.epoch, state.step, loss.detach(), norm, batch)
        state.schedule.apply(state.total_steps)
        state.arithmetic.step(state.optimizer)
        state.optimizer.zero_grad(set_to_none=True)
        if state.averaged is not None:
            state.averaged.update()
        state.tally.add_step(norm)
        state.step += 1
        after_step()


@torch.inference_mode()
def evaluate(
    network: nn.Module, batches: Iterable[Batch], test_time_augmentation: str, after_batch: Callable[[int], None]
) -> tuple[float, float]:
    """Mean cross-entropy per image and accuracy, in evaluation mode and full precision."""
    network.eval()
    loss, correct, images = 0.0, 0, 0
    for batch in batches:
        outputs = predict(network, batch.images, test_time_augmentation).float()
        loss += F.cross_entropy(outputs, batch.labels, reduction="sum").double().item()
        correct += int((outputs.argmax(1) == batch.labels).sum())
        images += len(batch)
        after_batch(images)
    return loss / images, correct / images
