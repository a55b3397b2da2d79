"""Chooses how many threads a run computes with under the present load, adapts the number, and records it.

Threads that synchronize after every small operation wait for the one that is not scheduled. Beside other programs that
makes them many times slower than one thread, so a run has more than one only while a measurement shows a gain, and
while no other training process needs the core (docs/decisions/cores.md).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

import torch

from models.cores import thread_limit
from models.notices import NoticeCode, NoticeData
from worker.training.neighbours import Neighbours
from worker.training.threads import Place, ThreadHistory

GAIN = 1.25
"""The speedup from which twice as many threads are chosen."""
KEEP = 1.1
"""The speedup from which they are kept: lower, so that a gain near the threshold causes no oscillation."""
FELL, ROSE = 0.5, 1.5
"""A run's speed, as a part of what it was with these threads, below or above which they are tried again."""
WINDOW_SECONDS = 1.0
"""Seconds of training over which a speed is measured."""
PATIENCE = 20
"""A trial is made only when the last one's time, so many times, has passed: trials cost 5% at most."""
RETRY = 50
"""More threads are tried without any sign when the last trial's time, so many times, has passed (2% of the time at
most), and twice as many times after each trial that changed nothing."""
RETRY_SECONDS = 600.0
"""Trials without a sign become no rarer than this, unless they take more than a fiftieth of it."""
SHORT_SECONDS = 1.0
"""A run that takes fewer seconds than this with one thread has no trial."""


class Speeds(Protocol):
    """The measurements that a decision is based on (see worker.training.trial)."""

    def step_seconds(self) -> float:
        """How long a step takes with one thread."""

    def speedup(self, more: int, fewer: int) -> float:
        """How many times as fast batches are with more threads."""


Tell = Callable[[NoticeCode, str, NoticeData], None]


class ThreadControl:
    """The threads of one run. Within its `with` block it sets the process's number of threads, at first 1.

    `replay` is the history of a run that this one is to repeat to the bit: then its numbers are used. `speeds` replaces
    the trial of the run itself.
    """

    def __init__(
        self,
        neighbours: Neighbours | None = None,
        *,
        limit: int | None = None,
        replay: ThreadHistory | None = None,
        speeds: Callable[[], Speeds] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.neighbours = neighbours or Neighbours()
        self.limit = limit or min(thread_limit(), torch.get_num_threads())
        """The largest number of threads: the cores of this process, and OMP_NUM_THREADS."""
        self.replay = replay
        self.history = ThreadHistory()
        self.threads = 1
        self.tell: Tell = lambda code, text, data: None
        """Called with a notice for the user: a change after the start."""
        self._clock = clock
        self._most = 1
        self._speeds = speeds
        self._allowed = self._decided_for = 1
        self._patient_until = -math.inf
        self._retry_at = -math.inf
        self._pause = 0.0
        """Seconds from the last trial to one without a sign."""
        self._said_limit = False
        self._work: object = None
        self._reference: float | None = None
        self._of_one = 0.0
        """Steps a second with one thread, by the last trial: several are to be faster from their first second on."""
        self._steps, self._seconds, self._began = 0, 0.0, 0.0

    def __enter__(self) -> Self:
        self._before = torch.get_num_threads()
        self._set(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        torch.set_num_threads(self._before)
        self.neighbours.close()

    @property
    def has_spare_core(self) -> bool:
        """Whether a core is free for preparing batches."""
        return self.threads < self.limit

    def begin(
        self,
        place: Place,
        speeds: Callable[[], Speeds],
        *,
        most: int,
        steps_left: int,
        history: ThreadHistory | None = None,
    ) -> None:
        """Choose the threads of a run that starts, or that resumes from a checkpoint with the history until then.

        `most` is the largest number that a step can use, `steps_left` the number of steps still to train.
        """
        history = history or ThreadHistory()
        self._speeds = speeds = self._speeds or speeds
        self._most = most
        known = history.at(place)
        self._allowed = self._decided_for = self._share()
        if self.replay is not None:
            self._set(self._replayed(place) or known or 1)
        elif known is not None:  # what it had, unless that has become too many
            self._set(min(known, self._allowed))
            if self.threads > 1:
                self._set(min(self.threads, self._try(speeds())))
        elif self._allowed > 1 and (tried := speeds()).step_seconds() * steps_left >= SHORT_SECONDS:
            self._set(self._try(tried))
        self.history = history.changed(place, self.threads)
        if known is not None and known != self.threads:
            self._say(place, known, "these cores are free now")

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Use one thread within this block, for results that must not depend on the number of threads."""
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self.threads)

    def serve_device(self) -> None:
        """Set the threads for a run on a GPU: the host's only prepare batches, and count as one core."""
        self.threads = self.limit
        torch.set_num_threads(self.limit)

    def begin_training(self, place: Place, work: object) -> None:
        """Mark the start of training steps at a place. Speeds of steps of different kinds are not compared."""
        self._repeat(place)
        if work != self._work:
            if self._work is not None:
                self._of_one = 0.0
                self._pause, self._retry_at = 0.0, self._patient_until
            self._work, self._reference = work, None
            self._steps, self._seconds = 0, 0.0
        self._began = self._clock()

    def after_step(self, place: Place) -> None:
        """Called after each step: once a second, check the speed and change the number of threads if needed."""
        if self._repeat(place):
            return
        self._steps += 1
        seconds = self._seconds + self._clock() - self._began
        if seconds >= WINDOW_SECONDS:
            self._look(place, self._steps / seconds)
            self._steps, self._seconds, self._began = 0, 0.0, self._clock()

    def end_training(self) -> None:
        """Mark the end of training steps: other work follows and is not timed."""
        self._seconds += self._clock() - self._began

    def _look(self, place: Place, speed: float) -> None:
        """Compare the speed, in steps per second, and the neighbours with the last ones, and adapt the threads."""
        if self._most == 1 or self._speeds is None:
            return
        self._allowed = self._share()
        self._decided_for = min(self._decided_for, self._allowed)
        if self.threads > self._allowed:
            self._change(place, self._allowed, "other experiments train on this machine")
            return
        reference = self._reference or (max(speed, self._of_one) if self.threads > 1 else speed)
        fell = self.threads > 1 and speed < FELL * reference
        rose = self.threads < self._allowed and (speed > ROSE * reference or self._allowed > self._decided_for)
        waited = self.threads < self._allowed and self._clock() >= self._retry_at
        if (fell or rose or waited) and self._clock() >= self._patient_until:
            if fell or rose:  # the load has changed, and may do so again
                self._pause = 0.0
            threads, before = self._try(self._speeds()), self.threads
            if threads < before:
                fallen = f": the speed had fallen to {speed / reference:.0%}" if fell else ""
                self._change(place, threads, f"the machine is busy{fallen}")
            elif threads > before:
                self._change(place, threads, "the machine has free cores")
            self._reference = None
        else:
            self._reference = max(reference, speed) if self.threads > 1 else reference

    def _try(self, speeds: Speeds) -> int:
        """Measure the best number of threads now: doubled from 1 as long as the gain is large enough."""
        began = self._clock()
        threads = 1
        while threads < self._allowed:
            more = min(2 * threads, self._allowed)
            gain = (KEEP if more <= self.threads else GAIN) - 1
            if speeds.speedup(more, threads) < 1 + gain * (more / threads - 1):
                break
            threads = more
        self._decided_for, self._of_one = self._allowed, 1 / max(speeds.step_seconds(), 1e-9)
        ended = self._clock()
        seconds = ended - began
        longer = 2 * self._pause if threads == self.threads else 0.0
        self._pause = max(RETRY * seconds, min(longer, RETRY_SECONDS))
        self._patient_until, self._retry_at = ended + PATIENCE * seconds, ended + self._pause
        return threads

    def _share(self) -> int:
        return min(self._most, self.neighbours.fair_share(self.limit))

    def _repeat(self, place: Place) -> bool:
        """Set the number of threads that the original run had; False if this run repeats none."""
        if self.replay is None:
            return False
        threads = self._replayed(place)
        if threads is not None and threads != self.threads:
            self._change(place, threads, "as in the original run")
        return True

    def _replayed(self, place: Place) -> int | None:
        """The original run's number of threads at a place, at most this process's limit."""
        assert self.replay is not None
        threads = self.replay.at(place)
        if threads is None or threads <= self.limit:
            return threads
        if not self._said_limit:
            self._said_limit = True
            text = (
                f"The original run used {threads} threads and this worker may use {self.limit}: "
                "results may differ in the last bits"
            )
            data: NoticeData = {**place._asdict(), "threads": self.limit, "asked": threads}
            self.tell(NoticeCode.THREADS_NOT_REPLAYED, text, data)
        return self.limit

    def _change(self, place: Place, threads: int, why: str) -> None:
        before = self.threads
        self._set(threads)
        self.history = self.history.changed(place, threads)
        self._reference = None
        self._say(place, before, why)

    def _say(self, place: Place, before: int, why: str) -> None:
        count = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        text = f"Training uses {count} instead of {before} from epoch {place.epoch}, step {place.step}: {why}"
        self.tell(NoticeCode.THREADS_CHANGED, text, {**place._asdict(), "threads": self.threads, "before": before})

    def _set(self, threads: int) -> None:
        self.threads = threads
        torch.set_num_threads(threads)
        self.neighbours.train_with(threads)
