"""Splits the training images into training and validation images, as a function of the spec's dataset part alone."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from models.data.dataset import ImageDataset
from models.data.info import DatasetInfo
from models.spec.data import DatasetSpec
from models.spec.experiment import ExperimentSpec

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]
How = Literal["random", "stratified", "grouped", "given"]


def split_dataset(dataset: ImageDataset, spec: ExperimentSpec) -> tuple[Indices, Indices]:
    """The training and the validation split of a dataset as a spec has them: see `split_indices`."""
    return split_indices(
        dataset.train_labels,
        spec.dataset,
        stratified=not spec.is_version_1,
        validation=dataset.validation,
        groups=dataset.groups,
    )


def split_indices(
    labels: Labels,
    spec: DatasetSpec,
    *,
    stratified: bool = True,
    validation: npt.NDArray[np.bool_] | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> tuple[Indices, Indices]:
    """The training and the validation split of the training images with these labels, as (train, validation) indices.

    The two are disjoint and in random order. `dataset.split` selects the method: see `kind_of_split`. `validation`
    marks the images that the dataset itself holds out, `groups` numbers the images that belong together. `train_limit`
    and `val_limit` shorten a split after it was made, so that a smaller experiment is validated on images that a larger
    one does not train on either; a larger limit includes the images of a smaller one. `stratified` limits keep the
    classes' shares; without it (specs of version 1) the first images are taken. Neither split is empty.
    """
    num_images = len(labels)
    if num_images < 2:
        raise ValueError(f"{num_images} images cannot be split in two")
    order = _random_order(num_images, spec.split_seed)
    num_val = num_validation(num_images, spec.val_fraction)
    how = kind_of_split(spec, given=validation is not None, grouped=groups is not None)
    if how == "random":
        train, val = order[num_val:], order[:num_val]
    else:
        held_out = np.zeros(num_images, dtype=bool)
        if how == "stratified":
            held_out[_by_class(order, labels, num_val)] = True
        elif how == "grouped" and groups is not None:
            held_out = _by_group(groups, num_val, spec.split_seed)
        elif validation is not None:
            held_out = validation
        train, val = order[~held_out[order]], order[held_out[order]]
        if not len(train) or not len(val):
            raise ValueError(f"a {how} split would leave {len(train)} images for training and {len(val)} held out")
    if not stratified:
        return train[: spec.train_limit], val[: spec.val_limit]
    return _limited(train, labels, spec.train_limit), _limited(val, labels, spec.val_limit)


def kind_of_split(spec: DatasetSpec, *, given: bool, grouped: bool) -> How:
    """The method of a split: the spec's, or by default the best one that the dataset allows.

    That is its own validation split (given), else whole groups, else a random split.
    """
    return spec.split or ("given" if given else "grouped" if grouped else "random")


def split_counts(spec: DatasetSpec, info: DatasetInfo) -> tuple[int, int]:
    """The numbers of images that are trained on and held out, before any limit; approximate for whole groups."""
    how = kind_of_split(spec, given=info.num_validation is not None, grouped=info.num_groups is not None)
    given = info.num_validation if how == "given" else None
    num_val = num_validation(info.num_train, spec.val_fraction) if given is None else given
    return info.num_train - num_val, num_val


def num_validation(num_images: int, val_fraction: float) -> int:
    """The number of training images that are held out, before any limit: at least one, and never all of them."""
    return min(max(1, round(val_fraction * num_images)), num_images - 1)


def _random_order(count: int, seed: int) -> Indices:
    # NumPy promises never to change the raw stream of a bit generator; permutation() may change between versions
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable").astype(np.int64)


def _by_class(order: Indices, labels: Labels, num_val: int) -> Indices:
    """The images of a stratified validation split.

    The last image of each class in the order stays for training, so that every class is trained on. A class of one
    image is not held out.
    """
    _, last = np.unique(labels[order[::-1]], return_index=True)
    free = np.delete(order, len(order) - 1 - last)
    return _limited(free, labels, num_val) if len(free) else order[:num_val]


def _by_group(groups: npt.NDArray[np.int64], num_val: int, seed: int) -> npt.NDArray[np.bool_]:
    """Hold out whole groups in random order, as many as still fit into `num_val` images; at least one, never all.

    A group that is too large is skipped and the following ones are tried; if none fits, the smallest is taken.
    """
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError("images that all belong to one group cannot be split by group")
    held_out = np.zeros(len(sizes), dtype=bool)
    room = num_val
    for group in _random_order(len(sizes), seed):
        if sizes[group] <= room:
            held_out[group] = True
            room -= sizes[group]
    if not held_out.any():
        held_out[np.argmin(sizes)] = True
    return held_out[group_of]


def _limited(split: Indices, labels: Labels, limit: int | None) -> Indices:
    """The first `limit` images of a split such that classes keep their shares, with one of each class at least.

    Apportionment by Webster's method: the image number k + 1 of a class of n images has priority (k + 1/2) / n, lowest
    first. Ties are broken by the split's random order.
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
