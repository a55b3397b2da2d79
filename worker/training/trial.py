"""Measures the speed of a run's batches with different numbers of threads under the present load."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean

import torch
from torch import Tensor

from models.spec.experiment import ExperimentSpec
from worker.training.batches.batch import Batch
from worker.training.batches.loader import EpochBatches, first_images
from worker.training.build import Data, input_size_in
from worker.training.state import TrainingState
from worker.training.thread_control import ThreadControl
from worker.training.threads import START
from worker.training.tuning import Tuning

ROUNDS = 4
TURN_SECONDS = 0.03
"""The numbers of threads are measured alternately, so that a changing load affects both."""
LONGEST_SECONDS = 1.0
"""No further round is begun after this: steps of several threads can be very slow, and one round shows it."""
STEP_SECONDS = 0.05
FEWEST_IMAGES = 8
"""Where a step of the whole batch takes longer, part of the batch is tried, down to this many images."""


class Trial:
    """Times forward and backward passes without changing weights, statistics or the random state."""

    def __init__(self, state: TrainingState, images: Tensor, labels: Tensor, images_a_step: int) -> None:
        self._state = state
        self._batch = Batch(images, labels)
        self._images_a_step = images_a_step
        self._image_seconds: float | None = None

    def step_seconds(self) -> float:
        """Estimated seconds of a whole step with one thread."""
        if self._image_seconds is None:
            with self._undone():
                torch.set_num_threads(1)
                whole, self._batch = self._batch, self._batch.first(FEWEST_IMAGES)
                self._step()  # chooses algorithms, takes memory
                self._image_seconds = self._step() / len(self._batch)
                self._batch = whole.first(max(FEWEST_IMAGES, int(STEP_SECONDS / self._image_seconds)))
        return self._image_seconds * self._images_a_step

    def speedup(self, more: int, fewer: int) -> float:
        """How many times as fast batches are with more threads."""
        self.step_seconds()
        seconds: dict[int, list[float]] = {fewer: [], more: []}
        began = time.perf_counter()
        with self._undone():
            self._turn(more, 0.0)  # threads are started, algorithms chosen
            for _ in range(ROUNDS):
                for threads, taken in seconds.items():
                    taken += self._turn(threads, TURN_SECONDS)
                if time.perf_counter() - began > LONGEST_SECONDS:
                    break
        return fmean(seconds[fewer]) / fmean(seconds[more])

    def _turn(self, threads: int, seconds: float) -> list[float]:
        """Seconds of each step of a turn, without the first, in which threads start or end, where there are others."""
        torch.set_num_threads(threads)
        ends = time.perf_counter() + seconds
        taken = [self._step()]
        while time.perf_counter() < ends:
            taken.append(self._step())
        return taken[1:] or taken

    def _step(self) -> float:
        state, batch = self._state, self._batch
        began = time.perf_counter()
        with state.mixed_precision.autocast():
            loss = state.criterion(state.network(batch.images), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in state.parameters:
            parameter.grad = None
        return time.perf_counter() - began

    @contextmanager
    def _undone(self) -> Iterator[None]:
        threads, random = torch.get_num_threads(), torch.get_rng_state()
        buffers = [buffer.clone() for buffer in self._state.network.buffers()]
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_rng_state(random)
            with torch.no_grad():
                for buffer, before in zip(self._state.network.buffers(), buffers, strict=True):
                    buffer.copy_(before)


def build_trial(spec: ExperimentSpec, data: Data, state: TrainingState, most_images: int) -> Trial:
    """A trial with the first training images, as they are, in the size of the epoch that the state is in."""
    size = input_size_in(spec, state.epoch, data.input_format.size)
    count = min(spec.batch_size, max(FEWEST_IMAGES, most_images))
    images = first_images(data.train, data.input_format, count, size)
    labels = data.train.labels[data.train.indices[: len(images)]]
    state.freezing.set_training_mode(state.epoch)
    return Trial(state, images, labels, spec.batch_size * spec.accumulate_batches)


def begin_as_in_training(
    thread_control: ThreadControl,
    spec: ExperimentSpec,
    data: Data,
    batches: EpochBatches,
    state: TrainingState,
    tuning: Tuning,
) -> None:
    """Choose the threads of a measurement as a whole run of the spec would choose them now."""
    if tuning.device.type == "cpu":
        thread_control.begin(
            START,
            lambda: build_trial(spec, data, state, tuning.chunk_images),
            most=tuning.most_threads,
            steps_left=state.steps_per_epoch * spec.epochs,
        )
        batches.prefetch = thread_control.has_spare_core
    else:
        thread_control.serve_device()
