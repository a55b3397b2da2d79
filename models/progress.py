"""The progress of a run and its test result: JSON objects shared by worker, store and service."""

from typing import TypedDict


class Progress(TypedDict):
    """The present progress of a run."""

    epoch: int
    """The epoch being trained, counted from 1; 0 before the first."""
    epochs: int
    step: int
    steps: int | None
    """Steps in an epoch; None until they are counted."""
    seconds_left: float | None
    images_per_second: float | None
    phase: str
    """starting, preparing, training, validating or testing; a download's state; the status of a run that has ended."""


class TestResult(TypedDict):
    """The best weights measured on the test split."""

    loss: float
    accuracy: float
    epoch: int
    """The epoch the weights are of."""
