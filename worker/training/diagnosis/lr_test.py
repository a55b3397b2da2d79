"""The learning-rate test (Smith 2015, "range test"): a few hundred steps while the rate grows exponentially.

With too small a rate the loss stays, with a good one it falls, with too large a one it explodes. The suggestion is a
fixed factor below the rate at which the loss begins to explode (`suggest`).
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.data.dataset import ImageDataset
from models.measurements import LearningRateTestResult, SweepResult
from models.spec.experiment import ExperimentSpec
from worker.training.build import build_batches, build_data, build_state
from worker.training.thread_control import ThreadControl
from worker.training.threads import START
from worker.training.trial import begin_as_in_training
from worker.training.tuning import choose_tuning

Array = NDArray[np.float64]

BLOWN_UP = 4.0
"""The sweep ends when the smoothed loss is this many times the lowest one, or not finite."""
IMAGES_A_RATE = 128
"""Images per rate: small batches are noisy, so each rate is tried on several of them, up to this many images."""
SECONDS = 20.0
"""The planned time of a sweep, which ends at 1.3 times this. A test must answer within 30 s."""
FEWEST_RATES = 30
"""A slow network is swept at fewer rates, down to this many; then on part of each batch, down to FEWEST_IMAGES."""
FEWEST_IMAGES = 16
FEW_STEPS = 100
SMOOTHING = 0.12
"""Decades of learning rate over which losses are averaged (standard deviation of a Gaussian)."""
UNFALLEN = 30.0
"""The same factor when the loss had no time to fall, since the edge is detected later then."""
BELOW_EDGE = 6.0
"""The factor between the edge and the suggestion: usual are 3 to 10, which leave a margin for a longer training."""


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep: rates, the mean loss at each, and the rate at which it blew up (None if it did not)."""

    rates: Array
    losses: Array
    diverged_at: float | None
    complete: bool = True
    """Whether it reached the end of its range or blew up; otherwise its time ended."""


@dataclass(frozen=True)
class Suggestion:
    """A learning rate (None when none can be suggested) and an explanation of how it was found."""

    lr: float | None
    why: str


@dataclass(frozen=True)
class Plan:
    """The plan of a sweep: number of rates, maximum steps at each, and images per batch."""

    num_rates: int
    steps_a_rate: int
    num_images: int


def make_plan(num_rates: int, batch_size: int, seconds_a_step: float, seconds: float = SECONDS) -> Plan:
    """Plan a sweep with as many of the requested rates, and as large batches, as the time allows.

    How many steps a rate gets, up to what its noise asks for, is decided during the sweep, by the time left.
    """
    affordable = seconds / max(seconds_a_step, 1e-9)
    wanted = max(1, min(8, round(IMAGES_A_RATE / batch_size)))
    if affordable >= num_rates:
        return Plan(num_rates, wanted, batch_size)
    rates = min(num_rates, max(FEWEST_RATES, int(affordable)))
    part = min(1.0, affordable / rates)
    return Plan(rates, 1, min(batch_size, max(FEWEST_IMAGES, int(batch_size * part))))


def learning_rate_test(
    spec: ExperimentSpec,
    dataset: ImageDataset,
    *,
    lr_min: float = 1e-6,
    lr_max: float = 1.0,
    steps: int = 100,
    device: str = "auto",
    seconds: float = SECONDS,
    thread_control: ThreadControl | None = None,
) -> LearningRateTestResult:
    """Sweep this spec's learning rate on its own network, images, optimizer and batch size.

    The schedule plays no part; clipping, smoothing and augmentation do.
    """
    began = time.perf_counter()
    num_steps = itertools.count()
    tuning = choose_tuning(spec, dataset, device)
    with tuning.applied(), thread_control or ThreadControl() as threads:
        data = build_data(spec, dataset, tuning)
        batches = build_batches(spec, data, tuning)
        state = build_state(spec, data, batches, tuning, None)
        begin_as_in_training(threads, spec, data, batches, state, tuning)
        state.freezing.set_training_mode(spec.fine_tuning.freeze_backbone_epochs + 1)  # the whole network is trained
        endless = itertools.chain.from_iterable(
            batches.iterate(epoch, data.input_format.size) for epoch in itertools.count(1)
        )
        threads.begin_training(START, None)
        groups = [(group, group["lr"] / spec.optimizer.lr) for group in state.optimizer.param_groups]

        def train_step(rate: float, num_images: int = spec.batch_size) -> float:
            next(num_steps)
            some = (batch.first(num_images) for batch in endless)
            batch = next(batch for batch in some if state.criterion.has_weight(batch))
            for group, factor in groups:
                group["lr"] = rate * factor
            with state.mixed_precision.autocast():
                loss = state.criterion(state.network(batch.images), batch)
            value = take_step(state.optimizer, loss, state.parameters, spec.clip_grad_norm)
            threads.after_step(START)
            return value

        plan = make_plan(steps, spec.batch_size, time_step(lambda: train_step(lr_min)), seconds)
        rates = np.geomspace(lr_min, lr_max, plan.num_rates)
        sweep = sweep_rates(
            lambda rate: train_step(rate, plan.num_images), rates, steps_a_rate=plan.steps_a_rate, seconds=seconds
        )
    suggestion, taken = suggest(sweep), next(num_steps)
    if suggestion.lr is None and taken < FEW_STEPS:
        more = f"{suggestion.why} There was time for {taken} steps only; try again when the machine is less busy."
        suggestion = replace(suggestion, why=more)
    result = as_json(sweep, suggestion)
    return {
        "points": result["points"],
        "suggestion": result["suggestion"],
        "diverged_at": result["diverged_at"],
        "num_steps": taken,
        "images_a_step": plan.num_images,
        "seconds": round(time.perf_counter() - began, 3),
    }


def time_step(train_step: Callable[[], float]) -> float:
    """Measure the seconds of one step, after a warm-up step; at the smallest rate none of them changes much.

    The quickest of three: on a busy machine one of them may have had to wait.
    """
    train_step()
    seconds = math.inf
    for _ in range(3):
        began = time.perf_counter()
        train_step()
        seconds = min(seconds, time.perf_counter() - began)
        if seconds > 1:
            break
    return seconds


def take_step(
    optimizer: torch.optim.Optimizer,
    loss: torch.Tensor,
    parameters: Sequence[torch.nn.Parameter],
    clip_grad_norm: float | None,
) -> float:
    """Train one step in full precision; returns the loss before it. A loss that is not finite changes no weights."""
    value = loss.item()
    if not math.isfinite(value):
        return value
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
    optimizer.step()
    return value


def sweep_rates(
    train_step: Callable[[float], float], rates: Array, *, steps_a_rate: int = 1, seconds: float = SECONDS
) -> Sweep:
    """Call `train_step(rate)`, which trains one step and returns its loss, up to `steps_a_rate` times a rate.

    Ends when the running mean of the losses is BLOWN_UP times its lowest, when a loss is not finite, or with time. A
    sweep that falls behind its time leaves rates out, so that it still reaches the end of its range: at most as many as
    leave FEWEST_RATES of them. Time is shared out by the square, since little happens at small rates.
    """
    began = time.perf_counter()
    tried: list[int] = []
    seen: list[float] = []
    stride = max(1, len(rates) // FEWEST_RATES)
    index, mean, lowest = 0, 0.0, math.inf

    def result(diverged_at: float | None, *, complete: bool = True) -> Sweep:
        return Sweep(rates[tried], np.array(seen), diverged_at, complete)

    while index < len(rates):
        elapsed = time.perf_counter() - began
        if len(seen) >= 5 and elapsed > 1.3 * seconds:
            return result(None, complete=False)
        rate, enough = float(rates[index]), began + seconds * ((index + 1) / len(rates)) ** 2
        tried.append(index)
        seen.append(float(np.mean(list(_finite_losses(train_step, rate, steps_a_rate, enough)))))
        if not math.isfinite(seen[-1]):
            return result(rate)
        mean = seen[-1] if len(seen) == 1 else 0.7 * mean + 0.3 * seen[-1]
        lowest = min(lowest, mean)
        if len(seen) > 3 and mean > BLOWN_UP * lowest:
            return result(rate)
        due = int(math.sqrt((time.perf_counter() - began) / max(seconds, 1e-9)) * len(rates))
        index += min(stride, max(1, due - index))
    return result(None)


def _finite_losses(train_step: Callable[[float], float], rate: float, most: int, enough: float) -> Iterator[float]:
    """Losses at a rate: one at least, `most` at most, until the clock shows `enough` or one is not finite."""
    for _ in range(most):
        loss = train_step(rate)
        yield loss
        if not math.isfinite(loss) or time.perf_counter() > enough:
            return


def smooth(rates: Array, losses: Array) -> Array:
    """Losses averaged over neighbouring rates, SMOOTHING decades wide or one rate; what is not finite stays so."""
    places = np.log10(rates)
    width = max(SMOOTHING, float(np.diff(places).mean()) if len(places) > 1 else 0.0)
    usable = np.isfinite(losses)
    if not usable.any():
        return losses.copy()
    weights = np.exp(-0.5 * ((places[:, None] - places[None, usable]) / width) ** 2)
    return np.where(usable, weights @ losses[usable] / np.maximum(weights.sum(axis=1), 1e-300), losses)


def suggest(sweep: Sweep) -> Suggestion:
    """A learning rate a stated factor below the edge.

    The edge is where the smoothed loss has climbed back from its lowest by a tenth of what it had fallen, or where it
    blew up. The suggestion is the edge over BELOW_EDGE, and not above a third of the rate of the lowest loss. Where the
    sweep was too short for the loss to fall by 2%, the edge is where it rose by 5%, and the factor UNFALLEN. A loss
    that fell and never rose again has no edge within the range: then the suggestion is the rate of the steepest fall.
    """
    usable = np.isfinite(sweep.losses)
    if usable.sum() < 5:
        cause = (
            "the loss was not finite even at the smallest rates"
            if sweep.complete
            else "the time limit was reached at once"
        )
        return Suggestion(None, f"No rate can be suggested: {cause}.")
    rates, losses = sweep.rates[usable], smooth(sweep.rates, sweep.losses)[usable]
    start = float(np.median(losses[: max(3, len(losses) // 10)]))
    lowest = int(np.argmin(losses))
    fallen = start - float(losses[lowest])
    if fallen < 0.02 * abs(start):
        edge = _first_rate(rates, losses > start + 0.05 * abs(start)) or sweep.diverged_at
        if edge is None:
            seen = "any rate of this range" if sweep.complete else f"{rates[-1]:.2g} or less, where the time ended"
            return Suggestion(None, f"The loss neither fell nor rose at {seen}; try larger rates.")
        return Suggestion(
            edge / UNFALLEN,
            f"{UNFALLEN:g} times below {edge:.2g}, where the loss began to rise without having fallen before.",
        )
    edge = _first_rate(rates[lowest:], losses[lowest:] > losses[lowest] + 0.1 * fallen) or sweep.diverged_at
    if edge is None:
        slope = np.gradient(losses, np.log10(rates))
        end = (
            "the loss did not rise again within this range" if sweep.complete else "the time ended before it rose again"
        )
        return Suggestion(float(rates[int(np.argmin(slope))]), f"The rate of the steepest fall; {end}.")
    lr = min(edge / BELOW_EDGE, float(rates[lowest]) / 3)
    return Suggestion(lr, f"{edge / lr:.1f} times below {edge:.2g}, where the loss began to rise again.")


def _first_rate(rates: Array, where: NDArray[np.bool_]) -> float | None:
    found = np.flatnonzero(where)
    return float(rates[found[0]]) if len(found) else None


def as_json(sweep: Sweep, suggestion: Suggestion) -> SweepResult:
    """The sweep as it is stored and sent."""
    smoothed = smooth(sweep.rates, sweep.losses)
    return {
        "points": [
            {
                "lr": float(rate),
                "loss": float(loss) if math.isfinite(loss) else None,
                "smoothed": float(mean) if math.isfinite(mean) else None,
            }
            for rate, loss, mean in zip(sweep.rates, sweep.losses, smoothed, strict=True)
        ],
        "suggestion": {"lr": suggestion.lr, "why": suggestion.why},
        "diverged_at": sweep.diverged_at,
    }
