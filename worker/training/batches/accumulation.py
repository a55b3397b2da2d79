"""Gradient accumulation: the batches of an epoch as micro-batches, of which several make one step of the optimizer."""

import math
from collections.abc import Iterator

from worker.training.batches.batch import MicroBatch
from worker.training.batches.loader import EpochBatches
from worker.training.criterion import Criterion


def micro_batches(
    batches: EpochBatches, criterion: Criterion, epoch: int, size: int, first_step: int, accumulate: int
) -> Iterator[MicroBatch]:
    """The batches of an epoch from a step on, `accumulate` of them a step; the last step may have fewer.

    `size` is the side of the images. What all images of a step weigh is known before its first batch is prepared, since
    the labels of the whole epoch are.
    """
    labels = batches.labels(epoch) if criterion.class_weights is not None else batches.split.labels
    weights = criterion.weights_of(labels, batches.edges)
    number = first_step * accumulate
    for batch in batches.iterate(epoch, size, number):
        first = number - number % accumulate
        last = min(first + accumulate, len(batches))
        number += 1
        yield MicroBatch(batch, weights[number - 1], math.fsum(weights[first:last]), ends_step=number == last)
