"""Which training images are trained on and which are held out: decided by the spec's dataset part and nothing else."""

import numpy as np
import numpy.typing as npt

from models.spec.data import DatasetSpec

Indices = npt.NDArray[np.int64]


def split_indices(num_images: int, spec: DatasetSpec) -> tuple[Indices, Indices]:
    """The training and the validation split of `num_images` training images, as (train, validation) indices.

    The two are disjoint and in random order. `train_limit` and `val_limit` shorten a split after it was made, so that a
    smaller experiment is validated on images that the larger one does not train on either. Neither split is empty.
    """
    if num_images < 2:
        raise ValueError(f"{num_images} images cannot be split in two")
    # NumPy promises never to change the raw stream of a bit generator; permutation() may change between versions
    order = np.argsort(np.random.PCG64(spec.split_seed).random_raw(num_images), kind="stable").astype(np.int64)
    num_val = num_validation(num_images, spec.val_fraction)
    train, val = order[num_val:], order[:num_val]
    return train[: spec.train_limit], val[: spec.val_limit]


def num_validation(num_images: int, val_fraction: float) -> int:
    """How many of the training images are held out, before any limit: at least one, and never all of them."""
    return min(max(1, round(val_fraction * num_images)), num_images - 1)
