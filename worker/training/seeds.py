"""Random streams as functions of the place in training, so that no generator state has to be saved or replayed.

The order of an epoch, and the augmentation of each chunk of it, come from generators of their own, seeded by the spec's
seed and the place. Only dropout draws from torch's global generator, whose state is in the checkpoint.
"""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """The purpose of a random stream. Changing a number would change the results of every run."""

    WEIGHTS = 1
    """Initial weights."""
    DROPOUT = 2
    """torch's global generator while training."""
    ORDER = 3
    """The order of the images in an epoch."""
    AUGMENTATION = 4
    """The augmentation of a chunk of batches."""
    MIXUP = 5
    """How strongly the batches of a chunk are mixed."""


def derive_seed(seed: int, stream: Stream, *place: int) -> int:
    """A 63-bit seed for one stream at one place (epoch, chunk); different places give independent streams."""
    return int(np.random.SeedSequence((seed, stream, *place)).generate_state(1, np.uint64)[0] >> 1)


def generator(device: torch.device, seed: int, stream: Stream, *place: int) -> torch.Generator:
    """A new generator for one stream at one place."""
    return torch.Generator(device).manual_seed(derive_seed(seed, stream, *place))
