"""Compares some training images' labels with what a trained network answers."""

import torch
from torch import nn

from models.evaluation.doubts import MIN_IMAGES, LabelDoubts, doubts_of
from worker.training.batches.loader import InputFormat, Split, plain_batches

MOST_IMAGES = 1000
TRAINED_FOR_ONE = 200
"""Images trained on, each epoch counted, for one whose label is looked at: it takes a few thousandths of the time."""


@torch.inference_mode()
def training_doubts(
    network: nn.Module, train: Split, input_format: InputFormat, *, num_epochs: int, batch_size: int
) -> LabelDoubts | None:
    """The labels of the first training images that the network doubts; None if training was too short to look at any.

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
