"""Short measurements made with the engine's own parts: the cost of a spec, and a suitable learning rate."""

import time
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import TypeVar

import torch

from models.data.uploaded import open_local
from models.measurements import DEFAULT_RANGE, LearningRateRange, LearningRateTestResult, PreflightResult
from models.plain import JsonObject
from models.settings import Settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from worker.training.batches.accumulation import micro_batches
from worker.training.batches.loader import EpochBatches, plain_batches
from worker.training.build import Data, build_batches, build_data, build_graphs, build_state
from worker.training.diagnosis.lr_test import learning_rate_test
from worker.training.environment import peak_memory_mb
from worker.training.graphs import GraphedSteps
from worker.training.guard import Diverged
from worker.training.loop import evaluate, train_epoch
from worker.training.neighbours import Neighbours
from worker.training.state import TrainingState
from worker.training.thread_control import ThreadControl
from worker.training.trial import begin_as_in_training
from worker.training.tuning import Tuning, choose_tuning

WARM_UP_STEPS = 3
"""The first steps allocate, choose algorithms and fill caches."""
TRAINING_SECONDS, VALIDATION_SECONDS = 4.0, 1.5
"""The longest time to measure for; a single step or batch may take longer."""

T = TypeVar("T")


class Clock:
    """Measures the seconds of each iteration of a loop, and ends the loop after a time limit."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.turns: list[float] = []
        """Seconds of each iteration."""
        self._device = device
        self._last = time.perf_counter()
        self._ends = self._last + seconds

    def until_over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items until the time is over; one at least."""
        for item in items:
            yield item
            if time.perf_counter() >= self._ends:
                return

    def tick(self) -> None:
        """Record the end of an iteration."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.turns.append(now - self._last)
        self._last = now


def measure_spec(body: JsonObject, settings: Settings) -> PreflightResult:
    """Train a few real steps and measure a few validation batches on this worker's device."""
    spec = load_spec(body)
    dataset = open_local(spec.dataset, settings)  # a measurement has a deadline and downloads nothing
    tuning = choose_tuning(spec, dataset, settings.device, cuda_graphs=settings.cuda_graphs)
    with tuning.applied(), ThreadControl(Neighbours([settings.data_dir])) as thread_control:
        data = build_data(spec, dataset, tuning)
        batches = build_batches(spec, data, tuning)
        state = build_state(spec, data, batches, tuning, settings.cache_dir)
        begin_as_in_training(thread_control, spec, data, batches, state, tuning)
        diverged, step_seconds, num_steps = _time_steps(spec, data, batches, state, build_graphs(spec, state, tuning))
        validation_seconds = _time_validation(spec, data, state, tuning)
    mean_loss = state.meters.means().loss
    seconds = step_seconds * state.steps_per_epoch + validation_seconds
    return {
        "device": str(tuning.device),
        "threads": thread_control.threads,
        "finite": diverged is None,
        "diverged": None if diverged is None else {"step": diverged.step + 1, "what": diverged.what},
        "steps_measured": num_steps,
        "mean_loss": mean_loss,
        "seconds_per_step": step_seconds,
        "images_per_second": len(data.train) / (step_seconds * state.steps_per_epoch),
        "seconds_per_epoch": seconds,
        "seconds_in_all": seconds * spec.epochs,
        "peak_memory_mb": peak_memory_mb(tuning.device),
    }


def measure_learning_rates(
    body: JsonObject, options: LearningRateRange | None, settings: Settings
) -> LearningRateTestResult:
    """Measure the loss over a sweep of learning rates and suggest one."""
    spec = load_spec(body)
    thread_control = ThreadControl(Neighbours([settings.data_dir]))
    return learning_rate_test(
        spec,
        open_local(spec.dataset, settings),
        **(options or DEFAULT_RANGE),
        device=settings.device,
        thread_control=thread_control,
    )


def _time_steps(
    spec: ExperimentSpec, data: Data, batches: EpochBatches, state: TrainingState, graphs: GraphedSteps | None
) -> tuple[Diverged | None, float, int]:
    """Where training diverged, seconds per step, and the number of steps measured. Images have their final size."""
    state.freezing.set_training_mode(1)
    clock = Clock(state.device, TRAINING_SECONDS)
    some = clock.until_over(
        micro_batches(batches, state.criterion, 1, data.input_format.size, 0, spec.accumulate_batches)
    )
    diverged = None
    try:
        train_epoch(state, some, clock.tick, graphs)
    except Diverged as error:
        diverged = error
        clock.tick()
    if not clock.turns:  # one step of many accumulated batches was too long
        clock.tick()
    counted = clock.turns[WARM_UP_STEPS:] or clock.turns
    return diverged, fmean(counted), len(counted)


def _time_validation(spec: ExperimentSpec, data: Data, state: TrainingState, tuning: Tuning) -> float:
    """Estimated seconds of a validation over the whole split."""
    clock = Clock(state.device, VALIDATION_SECONDS)
    measured = [0]

    def after_batch(num_images: int) -> None:
        clock.tick()
        measured.append(num_images)

    batches = clock.until_over(plain_batches(data.validation, data.input_format, tuning.eval_batch))
    evaluate(state.network, batches, spec.test_time_augmentation, after_batch)
    warm_up = 1 if len(clock.turns) > 1 else 0
    return sum(clock.turns[warm_up:]) / (measured[-1] - measured[warm_up]) * len(data.validation)
