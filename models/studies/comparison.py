"""Compares two ways to train: the difference of their scores with a confidence interval, paired by image.

Two things make a score uncertain: the seed (another one gives another network) and the images that it was measured on.
Several seeds on shared images are a crossed design, the one of studies in which several readers judge the same cases:
Dorfman, Berbaum and Metz (Invest. Radiol. 27, 1992) give its analysis of variance, Hillis (Stat. Med. 26, 2007) the
degrees of freedom. With one seed each, McNemar's test (Psychometrika 12, 1947) tells whether the two networks differ on
these images, and the interval is widened by the usual variation between seeds.

Pure functions of NumPy arrays. No torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from models.curves.statistics import student_tail

Bools = NDArray[np.bool_]

LEVEL = 0.95
ALPHA = 0.05
USUAL_SEED_SD = 0.005
"""Standard deviation of a validation accuracy between seeds that is allowed for where only one was run.

Three seeds of each of two presets spread by 0.13 and 0.11 points (docs/benchmarks.md), small networks on few images by
more. Where several seeds are run their spread is measured and not assumed.
"""
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Method(StrEnum):
    """How a difference was tested."""

    CROSSED = "seeds x images"
    """Several seeds on shared images: two-way analysis of variance, both random."""
    SEEDS = "seeds"
    """Several seeds on different images: Welch's t-test of their scores."""
    MCNEMAR = "McNemar"
    """One seed each on shared images: McNemar's exact test."""
    PROPORTIONS = "proportions"
    """One seed each on different images: a normal approximation of two proportions."""


class Judgement(StrEnum):
    """The conclusion on a row compared with its baseline."""

    BETTER = "better"
    """Above the baseline by more than chance explains."""
    WORSE = "worse"
    """Below it by more than chance explains."""
    NOISE = "noise"
    """Chance may explain the difference."""


@dataclass(frozen=True, eq=False)
class Score:
    """One run's result: the accuracy of its best weights, and on which images they are right."""

    seed: int
    accuracy: float
    num_images: int
    correct: Bools | None = None
    """Right or wrong on each image, (N,); None where its answers were not kept."""
    images: str = ""
    """Which images: equal for runs that were measured on the same ones."""


@dataclass(frozen=True)
class Spread:
    """Scores of several seeds. `deviation` is their standard deviation; None of a single one."""

    mean: float
    deviation: float | None
    lowest: float
    highest: float
    count: int


@dataclass(frozen=True)
class Difference:
    """A row's accuracy less its baseline's, from 0 to 1, and what chance may explain of it."""

    value: float
    low: float
    high: float
    p_value: float
    method: Method
    num_seeds: int
    adjusted_p: float | None = None
    """After Holm's correction for all comparisons of the study."""
    num_comparisons: int = 1

    @property
    def judgement(self) -> Judgement:
        """Better or worse only if the interval leaves 0 out and the corrected test agrees."""
        p_value = self.p_value if self.adjusted_p is None else self.adjusted_p
        if p_value >= ALPHA or self.low <= 0 <= self.high:
            return Judgement.NOISE
        return Judgement.BETTER if self.value > 0 else Judgement.WORSE

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


def spread_of(accuracies: Sequence[float]) -> Spread | None:
    """Mean and spread of the seeds' accuracies; None of none."""
    if not accuracies:
        return None
    deviation = stdev(accuracies) if len(accuracies) > 1 else None
    return Spread(fmean(accuracies), deviation, min(accuracies), max(accuracies), len(accuracies))


def compare(row: Sequence[Score], baseline: Sequence[Score]) -> Difference | None:
    """The difference of two rows, each with at least one score; None otherwise.

    Runs of the same seed are paired where both rows have them; seeds that one of them lacks are left out.
    """
    if not row or not baseline:
        return None
    others = {score.seed: score for score in baseline}
    pairs = [(score, others[score.seed]) for score in row if score.seed in others]
    shared = [_right_on_shared(one, other) for one, other in pairs]
    matrix = [found for found in shared if found is not None]
    if len(pairs) >= 2 and len(matrix) == len(pairs) and len({len(found[0]) for found in matrix}) == 1:
        return _crossed(np.stack([one.astype(np.float64) - other for one, other in matrix]))
    if len(row) >= 2 and len(baseline) >= 2:
        return _welch([score.accuracy for score in row], [score.accuracy for score in baseline])
    one, other = pairs[0] if pairs else (row[0], baseline[0])
    found = _right_on_shared(one, other)
    return _proportions(one, other) if found is None else _mcnemar(*found)


def holm(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """The same differences with p-values corrected for their number (Holm, Scand. J. Statist. 6, 1979)."""
    order = sorted((i for i, found in enumerate(differences) if found), key=lambda i: differences[i].p_value)  # type: ignore[union-attr]
    corrected = list(differences)
    highest = 0.0
    for rank, index in enumerate(order):
        found = differences[index]
        assert found is not None
        highest = max(highest, min(1.0, (len(order) - rank) * found.p_value))
        corrected[index] = replace(found, adjusted_p=highest, num_comparisons=len(order))
    return corrected


def _right_on_shared(one: Score, other: Score) -> tuple[Bools, Bools] | None:
    if one.correct is None or other.correct is None or one.images != other.images:
        return None
    return (one.correct, other.correct) if len(one.correct) == len(other.correct) else None


def _crossed(gains: NDArray[np.float64]) -> Difference:
    """From (seeds, images) of 1, 0 and -1: how much more often the row is right than its baseline."""
    num_seeds, num_images = gains.shape
    mean = float(gains.mean())
    by_seed, by_image = gains.mean(axis=1), gains.mean(axis=0)
    of_seeds = num_images * float(np.sum((by_seed - mean) ** 2)) / (num_seeds - 1)
    of_images = num_seeds * float(np.sum((by_image - mean) ** 2)) / max(num_images - 1, 1)
    rest = gains - by_seed[:, None] - by_image[None, :] + mean
    of_rest = float(np.sum(rest**2)) / max((num_seeds - 1) * (num_images - 1), 1)
    # Seeds may by chance lie closer together than their images' noise alone would put them: the larger one counts.
    seeds, images = max(of_seeds, of_rest), max(of_images - of_rest, 0.0)
    variance = (seeds + images) / (num_seeds * num_images)
    freedom = (seeds + images) ** 2 / (seeds**2 / (num_seeds - 1)) if seeds > 0 else math.inf
    return _by_student(mean, math.sqrt(variance), freedom, Method.CROSSED, num_seeds)


def _welch(row: Sequence[float], baseline: Sequence[float]) -> Difference:
    first, second = (stdev(values) ** 2 / len(values) for values in (row, baseline))
    error = math.sqrt(first + second)
    freedom = math.inf
    if error > 0:
        parts = first**2 / (len(row) - 1) + second**2 / (len(baseline) - 1)
        freedom = (first + second) ** 2 / parts
    number = min(len(row), len(baseline))
    return _by_student(fmean(row) - fmean(baseline), error, freedom, Method.SEEDS, number)


def _mcnemar(one: Bools, other: Bools) -> Difference:
    """The exact test on the images that only one of two networks gets right, and an interval of the difference.

    The interval is Agresti and Min's (Biostatistics 6, 2005): Wald's after half an image was added to each cell.
    """
    gained, lost = int(np.sum(one & ~other)), int(np.sum(~one & other))
    num_images = len(one)
    b, c, n = gained + 0.5, lost + 0.5, num_images + 2
    middle = (b - c) / n
    variance = max((b + c) - (b - c) ** 2 / n, 0.0) / n**2
    reach = Z * math.sqrt(variance + 2 * USUAL_SEED_SD**2)
    value = (gained - lost) / num_images
    low, high = min(value, middle - reach), max(value, middle + reach)
    return Difference(value, low, high, binomial_p(gained, lost), Method.MCNEMAR, 1)


def _proportions(one: Score, other: Score) -> Difference:
    variance = sum(
        max(score.accuracy * (1 - score.accuracy), 0.25 / max(score.num_images, 1)) / max(score.num_images, 1)
        for score in (one, other)
    )
    value = one.accuracy - other.accuracy
    error = math.sqrt(variance + 2 * USUAL_SEED_SD**2)
    return _by_student(value, error, math.inf, Method.PROPORTIONS, 1)


def _by_student(value: float, error: float, freedom: float, method: Method, num_seeds: int) -> Difference:
    if error <= 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, method, num_seeds)
    p_value = min(1.0, 2 * tail(abs(value) / error, freedom))
    reach = quantile(freedom) * error
    return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), p_value, method, num_seeds)


def tail(t: float, freedom: float) -> float:
    """The probability that Student's t with so many degrees of freedom (or a normal variable) is above t."""
    return 1 - NormalDist().cdf(t) if freedom > 1e6 else student_tail(t, max(1, math.floor(freedom)))


def quantile(freedom: float) -> float:
    """The t that Student's distribution is below with a probability of 0.975; by bisection."""
    low, high = 0.0, 1000.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, freedom) > (1 - LEVEL) / 2 else (low, middle)
    return high


def binomial_p(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p-value: as many heads of so many fair coins, or fewer, twice."""
    number = gained + lost
    if number == 0:
        return 1.0
    fewer = min(gained, lost)
    logs = [
        math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1) - number * math.log(2)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logs))
