"""The training and evaluation loops. Stop requests, progress and checkpoints are handled by callbacks (watch.py)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.predict import predict
from worker.training.batches.batch import Batch, MicroBatch
from worker.training.graphs import GraphedSteps
from worker.training.meters import ClassCounts
from worker.training.outputs import SplitOutputs
from worker.training.state import TrainingState
from worker.training.step import forward_backward, forward_only, optimizer_step


def train_epoch(
    state: TrainingState,
    micro_batches: Iterable[MicroBatch],
    after_step: Callable[[], None],
    graphs: GraphedSteps | None = None,
) -> None:
    """Train on the rest of an epoch, from the step that `state` is at. With `graphs`, steps are replayed on the GPU.

    Raises Diverged when a loss or gradient is not finite, and whatever `after_step` raises.
    """
    state.finite_guard.begin(state.epoch, state.step)
    for micro_batch in micro_batches:
        batch = micro_batch.batch
        state.schedule.apply(state.total_steps)  # the rate is a function of the step: set each time, so it never drifts
        grad_norm: Tensor | None = None  # stays None until the step's last micro-batch, and where all images weigh 0
        if micro_batch.step_weight == 0:
            logits = forward_only(state, micro_batch)
        elif graphs is not None and (graphs.can_replay(batch) or graphs.record(batch)):
            logits, grad_norm = graphs.replay(batch)
        else:
            logits, loss = forward_backward(state, micro_batch)
            if micro_batch.ends_step:
                grad_norm = optimizer_step(state, loss)
        state.meters.update(logits, batch)
        if not micro_batch.ends_step:
            continue
        if grad_norm is not None:  # the weights have changed
            if state.averaged is not None:
                state.averaged.update()
            state.meters.update_step(grad_norm)
        state.step += 1
        state.finite_guard.end_step(grad_norm)
        after_step()
    state.finite_guard.wait()


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    test_time_augmentation: str,
    after_batch: Callable[[int], None],
    outputs: SplitOutputs | None = None,
    classes: ClassCounts | None = None,
) -> tuple[float, float]:
    """Cross-entropy and accuracy, means per image, in evaluation mode and full precision.

    `after_batch` receives the number of images measured so far; `outputs` keeps the logits and `classes` counts by
    class. Sums are kept in 64 bits and divided once, so that the result depends on the batch size only by the rounding
    of the network's own operations.
    """
    network.eval()  # train_epoch's own mode is set at the start of each epoch, so nothing is put back here
    loss, correct, images = 0.0, 0, 0
    for batch in batches:
        logits = predict(network, batch.images, test_time_augmentation).float()
        loss += F.cross_entropy(logits, batch.labels, reduction="sum").double().item()
        is_correct = logits.argmax(1) == batch.labels
        correct += int(is_correct.sum())
        images += len(batch)
        if outputs is not None:
            outputs.add(logits, batch.labels)
        if classes is not None:
            classes.add(batch.labels, is_correct)
        after_batch(images)
    return loss / images, correct / images
