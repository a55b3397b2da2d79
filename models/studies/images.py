"""The sizes of a row's dataset, stored with the row because the dataset may be deleted before its study is read."""

from typing import NotRequired, TypedDict

from models.spec.experiment import ExperimentSpec


class RowImages(TypedDict):
    """A dataset's images as a row splits them, before any limit."""

    title: str
    """The dataset's, for people."""
    train: int
    val: int
    test: int
    classes: int
    split: NotRequired[str]
    """How the validation images were chosen: random, stratified, grouped or given; rows of earlier versions lack it."""


def split_sizes(spec: ExperimentSpec, images: RowImages) -> tuple[int, int, int]:
    """Images that a spec trains on, validates on, and tests on (0 if it does not)."""
    dataset = spec.dataset
    return (
        min(images["train"], dataset.train_limit or images["train"]),
        min(images["val"], dataset.val_limit or images["val"]),
        images["test"] if dataset.evaluate_test else 0,
    )
