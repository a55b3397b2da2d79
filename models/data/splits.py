"""Which training images are trained on and which are held out: decided by the spec's dataset part and nothing else."""

import numpy as np
import numpy.typing as npt

from models.spec.data import DatasetSpec

Indices = npt.NDArray[np.int64]


def split_indices(
    labels: npt.NDArray[np.int64], spec: DatasetSpec, *, stratified: bool = True
) -> tuple[Indices, Indices]:
    """The training and the validation split of the training images with these labels, as (train, validation) indices.

    The two are disjoint and in random order. `train_limit` and `val_limit` shorten a split after it was made, so that a
    smaller experiment is validated on images that the larger one does not train on either; what a smaller limit takes,
    a larger one takes too. `stratified` limits keep the classes' shares; without it (specs of version 1) the first
    images are taken. Neither split is empty.
    """
    num_images = len(labels)
    if num_images < 2:
        raise ValueError(f"{num_images} images cannot be split in two")
    # NumPy promises never to change the raw stream of a bit generator; permutation() may change between versions
    order = np.argsort(np.random.PCG64(spec.split_seed).random_raw(num_images), kind="stable").astype(np.int64)
    num_val = num_validation(num_images, spec.val_fraction)
    train, val = order[num_val:], order[:num_val]
    if not stratified:
        return train[: spec.train_limit], val[: spec.val_limit]
    return _limited(train, labels, spec.train_limit), _limited(val, labels, spec.val_limit)


def num_validation(num_images: int, val_fraction: float) -> int:
    """How many of the training images are held out, before any limit: at least one, and never all of them."""
    return min(max(1, round(val_fraction * num_images)), num_images - 1)


def _limited(split: Indices, labels: npt.NDArray[np.int64], limit: int | None) -> Indices:
    """So many images of a split, in its order: one of each class first, then the classes by their shares.

    Seats go to the classes as in an election by Webster's method: a class of n images gives its next one up, after k,
    in the order of (k + 1/2) / n. Among equals the split's random order decides.
    """
    if limit is None or limit >= len(split):
        return split
    own = labels[split]
    by_class = np.argsort(own, kind="stable")
    _, starts, counts = np.unique(own[by_class], return_index=True, return_counts=True)
    turn = np.empty(len(split))
    for start, count in zip(starts, counts, strict=True):
        turn[by_class[start : start + count]] = np.where(np.arange(count) == 0, 0, (np.arange(count) + 0.5) / count)
    return split[np.sort(np.argsort(turn, kind="stable")[:limit])]
