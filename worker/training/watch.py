"""Callbacks of the loop after each step: check for a request to stop, report progress, save a checkpoint."""

import time
from collections.abc import Callable

from worker.training.batches.loader import EpochBatches
from worker.training.sink import MetricSink
from worker.training.state import TrainingState

REPORT_SECONDS = 1.0
CHECKPOINT_SECONDS = 60.0
"""A long epoch is saved this often, so that a killed worker loses no more."""


class Interrupted(Exception):
    """Raised when a stop is requested: `cancel`, `shutdown`, or `stop` to end early as completed."""

    def __init__(self, asked: str) -> None:
        super().__init__(asked)
        self.asked = asked


class Watch:
    """Checks for a stop and reports after every step. `should_stop` and `look` run each time, so they must be quick."""

    def __init__(
        self,
        state: TrainingState,
        batches: EpochBatches,
        sink: MetricSink,
        should_stop: Callable[[], str | None],
        save: Callable[[], None],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = state
        self.batches = batches
        self.sink = sink
        self.should_stop = should_stop
        self.save = save
        self.look = look
        self.saved_at = self.reported_at = time.monotonic()
        self.begin_phase("training")

    def begin_phase(self, phase: str) -> None:
        """Report the start of a phase of the epoch."""
        self.phase = phase
        self.began_at, self.began_step = time.monotonic(), self.state.step
        self.report(None)

    def after_step(self) -> None:
        """Called by the training loop after each step."""
        self.look()
        asked, now = self.should_stop(), time.monotonic()
        save = now - self.saved_at >= CHECKPOINT_SECONDS
        if asked or save:
            self.state.finite_guard.wait()  # nothing is saved of steps that have not been checked
        if asked:
            raise Interrupted(asked)
        if now - self.reported_at >= REPORT_SECONDS:
            images = (self.state.step - self.began_step) * len(self.batches.split) / self.state.steps_per_epoch
            self.report(images / (now - self.began_at))
        if save:
            self.save()
            self.saved_at = time.monotonic()

    def after_measuring(self, num_images: int) -> None:
        """Called by the evaluation loop after each batch."""
        asked = self.should_stop()
        if asked and asked != "stop":  # an epoch that is measured ends first
            raise Interrupted(asked)
        now = time.monotonic()
        if now - self.reported_at >= REPORT_SECONDS:
            self.report(num_images / (now - self.began_at))

    def report(self, images_per_second: float | None) -> None:
        """Report the progress within the epoch to the sink."""
        self.reported_at = time.monotonic()
        self.sink.progress(self.state.epoch, self.state.step, self.state.steps_per_epoch, images_per_second, self.phase)
