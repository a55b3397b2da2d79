"""Synthetic histories of known kind, seeded, to count how often the verdict is wrong.

Each family draws its own length, classes, levels, speed and noise, and says what must and what must not be found. Noise
is white or carries over from epoch to epoch (AR(1) up to 0.5), and has a heavy tail in one history of four. The
effects that must be found are made as large as a reader would see them: several times the noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curves.metrics import EpochMetrics
from tests.models.verdict.histories import make_history

Array = NDArray[np.float64]

NEVER = frozenset({"collapse", "stuck-at-chance", "divergence", "slow-learning", "worse-than-guessing", "below-chance"})
"""What must not be said of a healthy run."""


@dataclass(frozen=True)
class Case:
    """A history and the truth about it. `begins` is the epoch at which the family's own trouble begins."""

    history: list[EpochMetrics]
    num_classes: int
    must: frozenset[str]
    must_not: frozenset[str]
    begins: int | None = None


class Draw:
    """One history's random choices."""

    def __init__(self, seed: int, shortest: int = 12, longest: int = 150) -> None:
        self.rng = np.random.default_rng(seed)
        self.n = int(np.exp(self.rng.uniform(math.log(shortest), math.log(longest))))
        self.num_classes = int(self.rng.choice([2, 10, 10, 10, 100]))
        self.chance = 1 / self.num_classes
        self.start = math.log(self.num_classes)
        self.top = self.chance + (1 - self.chance) * self.rng.uniform(0.45, 0.95)
        self.floor = self.start * self.rng.uniform(0.15, 0.55)
        self.sigma_loss = self.floor * self.rng.uniform(0.005, 0.04)
        self.sigma_accuracy = (self.top - self.chance) * self.rng.uniform(0.003, 0.025)
        self.carry = float(self.rng.choice([0.0, 0.0, 0.25, 0.5]))
        self.heavy = bool(self.rng.random() < 0.25)
        self.t = np.arange(1, self.n + 1, dtype=np.float64)

    def noise(self, sigma: float | Array) -> Array:
        """Noise of this history's kind."""
        shocks = self.rng.standard_t(4, self.n) / math.sqrt(2) if self.heavy else self.rng.standard_normal(self.n)
        for i in range(1, self.n):
            shocks[i] = self.carry * shocks[i - 1] + math.sqrt(1 - self.carry**2) * shocks[i]
        return np.asarray(shocks * sigma)

    def decay(self, speed: float) -> Array:
        """1 at epoch 0, falling by a factor e every `speed` epochs."""
        return np.exp(-self.t / speed)

    def case(
        self, val: Array, accuracy: Array, train: Array, must: set[str], must_not: set[str], begins: int | None = None
    ) -> Case:
        """Noise and bounds added."""
        val = np.maximum(val + self.noise(self.sigma_loss), 0.01)
        accuracy = np.clip(accuracy + self.noise(self.sigma_accuracy), 0.0, 1.0)
        train = np.maximum(train + self.noise(self.sigma_loss / 4), 0.001)
        history = make_history(val.tolist(), accuracy.tolist(), train.tolist())
        return Case(history, self.num_classes, frozenset(must), frozenset(must_not), begins)

    def learned(self, speed: float) -> tuple[Array, Array, Array]:
        """Validation loss, accuracy and training loss of a run that converges."""
        left = self.decay(speed)
        val = self.floor + (self.start - self.floor) * left
        train = 0.85 * self.floor + (self.start - 0.85 * self.floor) * left
        return val, self.top - (self.top - self.chance) * left, train


def clean(seed: int) -> Case:
    """Converges in a fifth of its epochs or less, then stays."""
    draw = Draw(seed)
    val, accuracy, train = draw.learned(draw.n / draw.rng.uniform(9, 25))
    return draw.case(val, accuracy, train, set(), {"overfitting", "still-improving", "training-loss-rising", *NEVER})


def noisy_plateau(seed: int) -> Case:
    """The same with two to four times the noise on the validation curves."""
    draw = Draw(seed)
    val, accuracy, train = draw.learned(draw.n / draw.rng.uniform(10, 25))
    draw.sigma_loss *= draw.rng.uniform(2, 4)
    draw.sigma_accuracy *= 2
    return draw.case(val, accuracy, train, set(), {"overfitting", "still-improving", *NEVER})


def late_overfit(seed: int) -> Case:
    """A minimum at 25% to 75% of the run, then a rise of at least six times the noise; the training loss falls on."""
    draw = Draw(seed)
    begins = max(4, round(draw.n * draw.rng.uniform(0.25, 0.75)))
    val, accuracy, train = draw.learned(begins / draw.rng.uniform(3, 6))
    past = np.maximum(draw.t - begins, 0) / (draw.n - begins)
    rise = max(6 * draw.sigma_loss, draw.floor * draw.rng.uniform(0.08, 0.8))
    train = train - 0.5 * draw.floor * draw.t / draw.n
    accuracy = accuracy - draw.rng.choice([0.0, 0.1]) * (draw.top - draw.chance) * past
    return draw.case(
        val + rise * past, accuracy, train, {"overfitting"}, {"still-improving", "training-loss-rising", *NEVER}, begins
    )


def collapse(seed: int) -> Case:
    """Falls to a level that keeps at most half of what was gained, within a few epochs of any epoch, and stays."""
    draw = Draw(seed)
    begins = int(draw.rng.integers(max(4, draw.n // 5), draw.n - 2))
    val, accuracy, train = draw.learned(begins / draw.rng.uniform(3, 8))
    speed = draw.rng.uniform(0.3, max(0.5, (draw.n - begins) / 4))
    fallen = 1 - np.exp(-np.maximum(draw.t - begins, 0) / speed)
    keep = draw.rng.uniform(0, 0.4)
    accuracy = accuracy - fallen * (1 - keep) * (draw.top - draw.chance)
    worse = fallen * (draw.start - draw.floor)
    return draw.case(
        val + worse, accuracy, train + worse, {"collapse"}, {"still-improving", "no-problem", "divergence"}, begins
    )


def collapse_and_recover(seed: int) -> Case:
    """One to four epochs at a fraction of the accuracy, then back."""
    draw = Draw(seed, shortest=16)
    begins = int(draw.rng.integers(draw.n // 3, draw.n - 7))
    width = int(draw.rng.integers(1, 5))
    val, accuracy, train = draw.learned(begins / draw.rng.uniform(4, 8))
    hit = ((draw.t > begins) & (draw.t <= begins + width)).astype(np.float64)
    accuracy = accuracy - hit * draw.rng.uniform(0.6, 1) * (draw.top - draw.chance)
    worse = hit * (draw.start - draw.floor)
    return draw.case(
        val + worse, accuracy, train + worse, {"collapse"}, {"overfitting", "no-problem", "stuck-at-chance"}, begins
    )


def never_learning(seed: int) -> Case:
    """Accuracy at chance, loss at ln(classes), both with the sampling noise of 500 to 10,000 validation images."""
    draw = Draw(seed, shortest=4)
    images = int(draw.rng.choice([500, 2000, 10_000]))
    accuracy = draw.rng.binomial(images, draw.chance, draw.n) / images
    draw.sigma_loss, draw.sigma_accuracy = draw.start * draw.rng.choice([0.0, 1e-4, 2e-3]), 0.0
    flat = np.full(draw.n, draw.start * 1.0005)
    wrong = {"overfitting", "collapse", "no-problem", "still-improving"}
    return draw.case(flat, accuracy, flat, {"stuck-at-chance"}, wrong)


def diverging(seed: int) -> Case:
    """Losses grow for a few epochs, then are NaN or infinite to the end; accuracy is chance from there."""
    draw = Draw(seed, shortest=4)
    begins = int(draw.rng.integers(1, draw.n + 1))
    val, accuracy, train = draw.learned(max(begins, 2) / 4)
    val = val * np.exp(np.maximum(draw.t - begins + 3, 0))
    accuracy = np.where(draw.t >= begins, draw.chance, accuracy)
    case = draw.case(val, accuracy, train, {"divergence"}, {"no-problem"}, begins)
    bad = float(draw.rng.choice([math.nan, math.inf]))
    columns = [[getattr(m, name) for m in case.history] for name in ("val_loss", "val_accuracy", "train_loss")]
    for column in (columns[0], columns[2]):
        column[begins - 1 :] = [bad] * (draw.n - begins + 1)
    return Case(make_history(*columns), draw.num_classes, case.must, case.must_not, begins)


def still_improving(seed: int) -> Case:
    """Falls by as much in the last third as its noise can hide eight times, in a straight line or slowing down."""
    draw = Draw(seed)
    shape = draw.t / draw.n if draw.rng.random() < 0.4 else (1 - draw.decay(draw.n / 1.8)) / (1 - math.exp(-1.8))
    shape = np.log1p(3 * draw.t / draw.n) / math.log(4) if draw.rng.random() < 0.3 else shape
    val = draw.start - (draw.start - draw.floor) * shape
    accuracy = draw.chance + (draw.top - draw.chance) * shape
    last = float(val[-max(5, draw.n // 3)] - val[-1])
    draw.sigma_loss = min(draw.sigma_loss, last / 6)
    draw.sigma_accuracy = min(draw.sigma_accuracy, float(accuracy[-1] - accuracy[-max(5, draw.n // 3)]) / 6)
    return draw.case(
        val, accuracy, val * 0.97, {"still-improving"}, {"overfitting", "wasted-epochs", "training-loss-rising", *NEVER}
    )


def oscillating(seed: int) -> Case:
    """A plateau with a zigzag or a wave of 4 to 8 points of accuracy and 15% of the loss."""
    draw = Draw(seed, shortest=16)
    val, accuracy, train = draw.learned(draw.n / draw.rng.uniform(8, 16))
    period = draw.rng.choice([2.0, 3.0, 5.0])
    wave = np.sin(2 * math.pi * draw.t / period + draw.rng.uniform(0, 6))
    wave = np.where(draw.t % 2 == 0, 1.0, -1.0) if period == 2 else wave
    val = val * (1 + 0.2 * wave)
    accuracy = accuracy - draw.rng.uniform(0.04, 0.08) * wave * min(1, 2 * (draw.top - draw.chance))
    return draw.case(val, accuracy, train, {"oscillation"}, {"overfitting", *NEVER, "no-problem"})


def schedule_steps(seed: int) -> Case:
    """Plateaus between sudden drops, as step schedules make them; the last drop is well before the end."""
    draw = Draw(seed, shortest=20)
    places = draw.rng.choice(np.arange(0.25, 0.7, 0.05), size=int(draw.rng.integers(1, 4)), replace=False)
    drops = sorted(places * draw.n)
    val, accuracy, train = draw.learned(draw.n / draw.rng.uniform(14, 25))
    stage = sum((draw.t > drop).astype(np.float64) for drop in drops) / len(drops)
    val = val + (draw.start - draw.floor) * 0.3 * (1 - stage)
    accuracy = draw.chance + (accuracy - draw.chance) * (0.75 + 0.25 * stage)
    train = train + (draw.start - draw.floor) * 0.3 * (1 - stage)
    return draw.case(val, accuracy, train, set(), {"overfitting", "training-loss-rising", *NEVER})


def early_stop(seed: int) -> Case:
    """Stopped five epochs after its best one: too soon to be sure of anything but that it converged."""
    draw = Draw(seed)
    val, accuracy, train = draw.learned(draw.n / draw.rng.uniform(4, 8))
    draw.sigma_loss /= 2
    case = draw.case(val, accuracy, train, set(), {"overfitting", *NEVER})
    best = int(np.argmin([metrics.val_loss for metrics in case.history]))
    return Case(case.history[: max(best + 6, 6)], case.num_classes, case.must, case.must_not)


def slow(seed: int) -> Case:
    """A rate thousands of times too small: a straight, smooth, tiny fall from ln(classes) or from far above it."""
    draw = Draw(seed)
    speed = draw.n * draw.rng.uniform(30, 300)
    above = draw.rng.choice([0.0, 1.5])
    val = draw.start * (1.002 + above * draw.decay(speed / 10)) - 0.5 * draw.start * (1 - draw.decay(speed))
    accuracy = draw.chance + (draw.top - draw.chance) * (1 - draw.decay(speed))
    draw.sigma_loss = float(val[0] - val[-1]) / 60
    draw.sigma_accuracy = float(accuracy[-1] - accuracy[0]) / 20
    return draw.case(val, accuracy, val, {"slow-learning|stuck-at-chance"}, {"overfitting", "collapse", "no-problem"})


FAMILIES: dict[str, Callable[[int], Case]] = {
    function.__name__: function
    for function in (
        clean,
        noisy_plateau,
        late_overfit,
        collapse,
        collapse_and_recover,
        never_learning,
        diverging,
        still_improving,
        oscillating,
        schedule_steps,
        early_stop,
        slow,
    )
}
