"""Compares the labels of some training images with a trained network's predictions."""

import torch
from torch import nn

from models.evaluation.doubts import MIN_IMAGES, LabelDoubts, doubts_of
from worker.training.batches.loader import InputFormat, Split, plain_batches

MOST_IMAGES = 1000
TRAINED_FOR_ONE = 200
"""Images trained on, over all epochs, per label that is compared: that takes some thousandths of the run's time."""


@torch.inference_mode()
def training_doubts(
    network: nn.Module, train: Split, input_format: InputFormat, *, num_epochs: int, batch_size: int
) -> LabelDoubts | None:
    """Compare the first training images' labels with the predictions; None if training was too short for any.

    The network is left in evaluation mode.
    """
    count = min(MOST_IMAGES, len(train), len(train) * num_epochs // TRAINED_FOR_ONE)
    if count < MIN_IMAGES:
        return None
    network.eval()
    some = Split(train.images, train.labels, train.indices[:count])
    logits = [network(batch.images).float().cpu() for batch in plain_batches(some, input_format, batch_size)]
    labels = train.labels[some.indices].cpu()
    return doubts_of("training", torch.cat(logits).numpy(), labels.numpy())
