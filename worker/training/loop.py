"""One epoch of training, and one measurement. What watches them hangs on them: guard, tally, progress, checkpoints."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.predict import predict
from worker.training.batches import Batch
from worker.training.state import TrainingState
from worker.training.step import add_gradient, change_weights


def train_epoch(
    state: TrainingState, batches: Iterable[tuple[Batch, float, bool]], after_step: Callable[[], None]
) -> None:
    """Train on the batches. Each comes with its share of the step's images and whether it completes the step."""
    state.guard.begin(state.epoch, state.step)
    for batch, share, completes in batches:
        state.schedule.apply(state.total_steps)
        norm: Tensor | None
        if state.graphs is not None and state.graphs.take(batch):
            outputs, norm = state.graphs.replay(batch)
        else:
            outputs, loss = add_gradient(state, batch, share)
            norm = change_weights(state, loss) if completes else None
        state.tally.add(outputs, batch)
        if norm is None:
            continue
        if state.averaged is not None:
            state.averaged.update()
        state.tally.add_step(norm)
        state.step += 1
        state.guard.look(norm)
        after_step()
    state.guard.settle()


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
