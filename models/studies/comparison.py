"""Compares two ways to train: the difference of their scores with a confidence interval, paired by image.

Two things make a score uncertain: the seed (another one gives another network) and the images that it was measured on.
Several seeds on shared images are a crossed design, the one of studies in which several readers judge the same cases:
Dorfman, Berbaum and Metz (Invest. Radiol. 27, 1992) give its analysis of variance. The variance between seeds is pooled
over all rows of a study that have several, as in an analysis of variance of groups: two seeds of one row alone say next
to nothing about it. The degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946).
Where no row has several seeds, McNemar's test (Psychometrika 12, 1947) tells whether two networks differ on these
images, and the interval is widened by the usual variation between seeds.

Pure functions of NumPy arrays. No torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
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
KEPT_COMPARISONS, KEPT_VARIANCES = 1024, 64
"""Results that are kept; those of the same scores are computed once."""
NORMAL = 1e6
"""With more degrees of freedom Student's distribution is the normal one."""
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Method(StrEnum):
    """How a difference was tested."""

    CROSSED = "seeds x images"
    """Shared images, and several seeds of at least one row of the study: two-way analysis of variance, both random."""
    SEEDS = "seeds"
    """Several seeds on different images: Welch's t-test of their scores."""
    MCNEMAR = "McNemar"
    """Shared images, and one seed of every row of the study: McNemar's exact test."""
    PROPORTIONS = "proportions"
    """Different images, or predictions that were not stored: two proportions, with the variance between seeds."""


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
    """Right or wrong on each image, (N,); None where its predictions were not stored."""
    images: str = ""
    """Which images: equal for runs that were measured on the same ones."""


@dataclass(frozen=True)
class SeedVariance:
    """The variance of the accuracy between seeds, from all rows with several of them."""

    total: float
    """Variance of the accuracies on the images measured, which the images' own noise is part of."""
    own: float
    """What is left of it without that noise: the variance on infinitely many images."""
    freedom: int
    """Degrees of freedom: seeds beyond the first of each row."""


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
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    return Spread(fmean(accuracies), deviation, min(accuracies), max(accuracies), len(accuracies))


def seed_variance(rows: Iterable[Sequence[Score]]) -> SeedVariance | None:
    """The variance between seeds, pooled over rows with at least two on shared images; None where there are none.

    Rows that share their runs count once. All rows are taken to vary alike.
    """
    return _seed_variance(tuple(tuple(row) for row in rows))


@lru_cache(KEPT_VARIANCES)
def _seed_variance(rows: tuple[tuple[Score, ...], ...]) -> SeedVariance | None:
    groups = {tuple((score.images, score.seed, score.accuracy) for score in row): row for row in rows}
    total = own = 0.0
    freedom = 0
    for row in groups.values():
        if len(row) < 2 or (correct := _correct(row)) is None:
            continue
        beyond, num_images = len(correct) - 1, correct.shape[1]
        by_seed, by_image = correct.mean(axis=1), correct.mean(axis=0)
        rest = correct - by_seed[:, None] - by_image[None, :] + correct.mean()
        variance = float(np.var(by_seed, ddof=1))
        noise = float(np.sum(rest**2)) / (beyond * max(num_images - 1, 1)) / num_images
        total, own, freedom = total + beyond * variance, own + beyond * (variance - noise), freedom + beyond
    return SeedVariance(total / freedom, max(own / freedom, 0.0), freedom) if freedom else None


def compare(row: Sequence[Score], baseline: Sequence[Score], seeds: SeedVariance | None = None) -> Difference | None:
    """The difference of two rows' mean scores, each with at least one; None otherwise.

    `seeds` is the variance between seeds in the whole study; without it, that of these two rows.
    """
    return _compare(tuple(row), tuple(baseline), seeds) if row and baseline else None


@lru_cache(KEPT_COMPARISONS)
def _compare(row: tuple[Score, ...], baseline: tuple[Score, ...], seeds: SeedVariance | None) -> Difference:
    """A study is read far more often than it changes, and the scores of a run that has ended stay the same objects."""
    correct = _correct([*row, *baseline])
    seeds = seeds or (None if correct is None else seed_variance([row, baseline]))
    if seeds is not None:
        if correct is None:
            return _by_parts(row, baseline, _binomial(row) + _binomial(baseline), seeds, Method.PROPORTIONS)
        gains = correct[: len(row)].mean(axis=0) - correct[len(row) :].mean(axis=0)
        return _by_parts(row, baseline, float(np.var(gains, ddof=1)) / len(gains), seeds, Method.CROSSED)
    if len(row) >= 2 and len(baseline) >= 2:
        return _welch([score.accuracy for score in row], [score.accuracy for score in baseline])
    if correct is not None:
        return _mcnemar(correct[0] > 0, correct[1] > 0)
    return _proportions(row, baseline)


def compare_rows(
    scores: Mapping[str, Sequence[Score]], baselines: Mapping[str, str | None]
) -> dict[str, Difference | None]:
    """The difference of each row of a study to its baseline, by key, with the variance between seeds of all rows.

    None of a row without a baseline or where one of the two has no score. Not corrected for their number: see `holm`.
    """
    seeds = seed_variance(scores.values())
    return {
        key: None if baseline is None else compare(scores[key], scores.get(baseline, ()), seeds)
        for key, baseline in baselines.items()
    }


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


def _correct(scores: Sequence[Score]) -> NDArray[np.float64] | None:
    """Right (1) or wrong (0) by run and image, (runs, N); None unless all were measured on the same images."""
    found = [score.correct for score in scores if score.correct is not None]
    alike = len({score.images for score in scores}) == 1 and len({len(each) for each in found}) == 1
    return np.stack(found).astype(np.float64) if alike and len(found) == len(scores) else None


def _by_parts(
    row: Sequence[Score], baseline: Sequence[Score], images: float, seeds: SeedVariance, method: Method
) -> Difference:
    """From the variance that the images give the difference, and that between seeds."""
    value = fmean(score.accuracy for score in row) - fmean(score.accuracy for score in baseline)
    repeats = 1 / len(row) + 1 / len(baseline)
    variance = images + repeats * seeds.own
    freedom = variance**2 * seeds.freedom / (repeats * seeds.total) ** 2 if seeds.total > 0 else math.inf
    freedom = max(freedom, seeds.freedom)  # as Hillis (Stat. Med. 26, 2007) bounds it: never fewer than the seeds give
    return _by_student(value, math.sqrt(variance), freedom, method, min(len(row), len(baseline)))


def _binomial(row: Sequence[Score]) -> float:
    """The variance of a row's accuracy on other images of the same kind."""
    accuracy, num_images = fmean(score.accuracy for score in row), max(row[0].num_images, 1)
    return max(accuracy * (1 - accuracy), 0.25 / num_images) / num_images


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


def _proportions(row: Sequence[Score], baseline: Sequence[Score]) -> Difference:
    value = fmean(score.accuracy for score in row) - fmean(score.accuracy for score in baseline)
    error = math.sqrt(_binomial(row) + _binomial(baseline) + 2 * USUAL_SEED_SD**2)
    return _by_student(value, error, math.inf, Method.PROPORTIONS, 1)


def _by_student(value: float, error: float, freedom: float, method: Method, num_seeds: int) -> Difference:
    if error <= 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, method, num_seeds)
    p_value = min(1.0, 2 * tail(abs(value) / error, freedom))
    reach = quantile(freedom) * error
    return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), p_value, method, num_seeds)


def tail(t: float, freedom: float) -> float:
    """The probability that Student's t with so many degrees of freedom (or a normal variable) is above t."""
    return 1 - NormalDist().cdf(t) if freedom > NORMAL else student_tail(t, max(1, math.floor(freedom)))


def quantile(freedom: float) -> float:
    """The t that Student's distribution is below with a probability of 0.975; by bisection."""
    return _quantile(math.inf if freedom > NORMAL else max(1, math.floor(freedom)))


@lru_cache(KEPT_COMPARISONS)
def _quantile(freedom: float) -> float:
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
