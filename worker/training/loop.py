"""One epoch of training, and one measurement. What watches them hangs on them: guard, tally, progress, checkpoints."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.predict import predict
from worker.training.batches.loader import Batch, Part
from worker.training.state import TrainingState
from worker.training.step import add_gradient, change_weights, only_look


def train_epoch(state: TrainingState, parts: Iterable[Part], after_step: Callable[[], None]) -> None:
    """Train on the batches. A step whose images weigh nothing changes no weights and is counted all the same."""
    state.guard.begin(state.epoch, state.step)
    for part in parts:
        batch = part.batch
        state.schedule.apply(state.total_steps)
        norm: Tensor | None = None
        if part.step_weight == 0:
            outputs = only_look(state, part)
        elif state.graphs is not None and state.graphs.take(batch):
            outputs, norm = state.graphs.replay(batch)
        else:
            outputs, loss = add_gradient(state, part)
            norm = change_weights(state, loss) if part.completes else None
        state.tally.add(outputs, batch)
        if not part.completes:
            continue
        if norm is not None:
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
