"""The progress of work on a dataset and of a run, and a run's test result: shared by worker, store and service."""

from collections.abc import Callable
from typing import TypedDict

ReportProgress = Callable[[str, int, int], None]
"""progress(what, done, total): called while a dataset is imported, changed or checked; it may raise to stop the work,
which an import can continue later."""


class RunProgress(TypedDict):
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
