"""Finds a learning rate that works where another diverged: by a learning-rate test, verified by training."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.training.diagnosis.lr_test import make_plan, suggest, sweep_rates, time_step
from worker.training.diagnosis.replay import Step, Training

Array = NDArray[np.float64]

SWEEP_SECONDS = 10.0
PROOF_STEPS = 60
"""Steps of training at a suggested rate between two checks of whether the loss has fallen."""
MOST_PROOF_STEPS = 300
FEWEST_PROOF_STEPS = 20
PROOF_SECONDS = 4.0
PROVEN_FALL = 0.02
"""The smallest relative fall of the loss that counts."""


def find_working_rate(training: Training, steps: Sequence[Step], lr: float) -> tuple[float | None, str]:
    """Find a rate below the one that diverged by a learning-rate test and a short training. Returns it and a reason."""
    if not steps:
        return None, "There were no batches for trying learning rates."
    high = lr
    step = _begin(training, steps)
    images = sum(len(micro_batch.batch) for micro_batch in steps[0])
    plan = make_plan(60, images, time_step(lambda: step(high * 1e-6)), SWEEP_SECONDS)
    rates = np.geomspace(high * 1e-5, high, plan.num_rates)
    sweep = sweep_rates(step, rates, steps_a_rate=plan.steps_a_rate, seconds=SWEEP_SECONDS)
    found = suggest(sweep)
    rate = min(found.lr, high / 3) if found.lr is not None else high / 100
    unmoved: list[float] = []
    for _ in range(4):
        trial = _try_rate(_begin(training, steps), rate, len(steps))
        if trial.learned:
            why = found.why if found.lr == rate else f"{high / rate:.3g} times below the rate that diverged."
            return rate, f"{why} {trial}"
        if trial.finite:
            unmoved.append(rate)
        higher = trial.finite and min(unmoved) == rate and 3 * rate <= high / 3
        rate *= 3 if higher else 0.1
        if any(math.isclose(rate, tried) for tried in unmoved):
            break
    if unmoved:
        tried = " and ".join(f"{rate:.2g}" for rate in sorted(unmoved))
        return (
            None,
            f"No learning rate is suggested: at {tried} training stayed finite, but the loss did not fall.",
        )
    return (
        None,
        "Training was not finite, or got worse, at far smaller rates as well: the cause is not the learning rate.",
    )


def _begin(training: Training, steps: Sequence[Step]) -> Callable[[float], float]:
    """Start training again; the returned function trains one step at a rate and returns its loss."""
    replica = training.begin(None, steps, 1.0)
    factors = [float(group["lr"]) for group in replica.optimizer.param_groups]
    endless = itertools.cycle(steps)

    def step(rate: float) -> float:
        for group, factor in zip(replica.optimizer.param_groups, factors, strict=True):
            group["lr"] = rate * factor
        return replica.take(next(endless))

    return step


@dataclass(frozen=True)
class _Trial:
    """The result of training at a rate: the losses before it, on the first batches, and those of its last steps."""

    before: Array
    after: Array
    num_steps: int
    finite: bool
    """Whether every loss was finite and none above twice the mean of those before."""

    @property
    def learned(self) -> bool:
        """Whether the loss fell by at least PROVEN_FALL and by more than twice its standard error."""
        if not self.finite:
            return False
        before, after = float(self.before.mean()), float(self.after.mean())
        doubt = math.sqrt(self.before.var() / len(self.before) + self.after.var() / len(self.after))
        return before - after > max(PROVEN_FALL * before, 2 * doubt)

    def __str__(self) -> str:
        before, after = float(self.before.mean()), float(self.after.mean())
        return f"In {self.num_steps} steps of training at this rate the loss fell from {before:.3g} to {after:.3g}."


def _try_rate(step: Callable[[float], float], rate: float, num_batches: int) -> _Trial:
    """Train at a rate until the loss has fallen, is not finite, or the time is over.

    The losses before are measured on the same batches at a rate of 0.
    """
    count = min(num_batches, FEWEST_PROOF_STEPS)
    before = np.array([step(0.0) for _ in range(count)])
    most = 2 * float(before.mean())
    began = time.perf_counter()
    losses: list[float] = []
    while True:
        losses.append(step(rate))
        finite = math.isfinite(most) and losses[-1] <= most  # false for NaN too
        trial = _Trial(before, np.array(losses[-max(count, len(losses) // 4) :]), len(losses), finite)
        in_time = len(losses) < FEWEST_PROOF_STEPS or time.perf_counter() - began < PROOF_SECONDS
        asked = len(losses) % PROOF_STEPS == 0 or not in_time
        if not finite or (asked and (trial.learned or not in_time or len(losses) >= MOST_PROOF_STEPS)):
            return trial
