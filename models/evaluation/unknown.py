"""A score of how unlike the validation images an image is, from its pixels and the network's energy.

The energy alone (Liu et al. 2020) does not tell clothes or noise from CIFAR-10 with a small network, nor does anything
else that is computed from its logits: what sets such images apart is lost before them. It is plain in a few statistics
of the pixels, which in turn know nothing of classes. So the score is the sum of two: the energy, and the squared
Mahalanobis distance of an image's statistics from those of the validation images, each in its standard deviations.
docs/benchmarks.md compares it with scores from the features before the head.
"""

import math
from dataclasses import astuple, dataclass, replace
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.evaluation.probabilities import Floats
from models.plain import JsonObject

SIDE = 32
"""Of larger images about this many rows and columns are looked at for the statistics of single pixels."""
CELLS = (16, 8)
"""Cells along a side, in which pixels are averaged for the statistics of larger structures."""
BLACK, WHITE = 2, 253
"""Pixel values up to the one and from the other on."""
LEAST_COLOUR, LEAST_ROUGHNESS, LEAST_SHARE = 100.0, 1.0, 0.01
"""Added before a logarithm is taken: to mean squares of differences of pixel values, and to shares of pixels. The first
keeps gray photos among coloured ones from being far."""
STATISTICS = 8
"""Brightness, contrast, colour, differences of neighbours at three scales, shares of black and of white."""
LEAST_SCALE = 0.05
"""Taken for the standard deviation of a statistic that hardly varies among the validation images."""
LEAST_SPREAD = 1e-3
"""The same for the distances and the energies."""
SHRINKAGE = 0.02
"""Weight of the identity in the correlation matrix, which may be singular."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a quantity over the validation images."""

    mean: float
    deviation: float

    def standardise(self, values: Floats) -> Floats:
        """Values (N,) as deviations from the mean."""
        standard: Floats = (values - self.mean) / self.deviation
        return standard


@dataclass(frozen=True)
class UnknownScore:
    """The parameters of the score, and the threshold that most validation images do not exceed."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    """Standard deviations of the statistics."""
    precision: tuple[float, ...]
    """The inverse of their correlation matrix, row after row."""
    distance: Spread
    energy: Spread
    threshold: float

    def score(self, statistics: Floats, energies: Floats) -> Floats:
        """Scores (N,) of images' statistics (N, 8) and energies (N,). None depends on the other images, to the bit."""
        return self.distance.standardise(self.distances(statistics)) + self.energy.standardise(energies)

    def distances(self, statistics: Floats) -> Floats:
        """Squared Mahalanobis distances (N,) of statistics (N, 8)."""
        scaled = (statistics - self.means) / self.scales
        precision = np.reshape(self.precision, (STATISTICS, STATISTICS))
        terms = scaled[:, :, None] * precision * scaled[:, None, :]
        squares: Floats = terms.reshape(len(scaled), -1).sum(axis=1)
        return squares

    @classmethod
    def from_json(cls, data: JsonObject) -> Self:
        """Read what `dataclasses.asdict` gave. Raises ValueError, KeyError or TypeError for anything else."""
        means, scales, precision = (tuple(map(float, data[name])) for name in ("means", "scales", "precision"))
        distance, energy = (
            Spread(float(data[name]["mean"]), float(data[name]["deviation"])) for name in ("distance", "energy")
        )
        threshold = float(data["threshold"])
        if not (len(means) == len(scales) == STATISTICS and len(precision) == STATISTICS**2):
            raise ValueError("the score is of other statistics")
        numbers = (*means, *scales, *precision, *astuple(distance), *astuple(energy), threshold)
        if not all(map(math.isfinite, numbers)) or min(*scales, distance.deviation, energy.deviation) <= 0:
            raise ValueError("the score is not of finite numbers")
        return cls(means, scales, precision, distance, energy, threshold)


def fit_unknown_score(statistics: Floats, energies: Floats, kept: float) -> UnknownScore:
    """Fit to a validation split's statistics (N, 8) and energies (N,); a part `kept` of its images is to be known."""
    means, scales = statistics.mean(axis=0), np.maximum(statistics.std(axis=0), LEAST_SCALE)
    scaled = (statistics - means) / scales
    correlation = (1 - SHRINKAGE) * scaled.T @ scaled / len(scaled) + SHRINKAGE * np.eye(STATISTICS)
    found = UnknownScore(
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        precision=tuple(np.linalg.inv(correlation).ravel().tolist()),
        distance=Spread(0.0, 1.0),
        energy=_spread(energies),
        threshold=math.inf,
    )
    found = replace(found, distance=_spread(found.distances(statistics)))
    return replace(found, threshold=threshold_keeping(found.score(statistics, energies), kept))


def _spread(values: Floats) -> Spread:
    return Spread(float(values.mean()), max(float(values.std()), LEAST_SPREAD))


def threshold_keeping(scores: Floats, kept: float) -> float:
    """A number that at least a part `kept` of the scores do not exceed, and no more of them than needed.

    Halfway between two of them, so that sums that are rounded differently elsewhere put no image on the other side.
    """
    highest = np.sort(scores)[max(0, math.ceil(kept * len(scores)) - 1)]
    higher = scores[scores > highest]
    return float((highest + higher.min()) / 2 if len(higher) else highest)


def image_statistics(images: NDArray[np.uint8]) -> Floats:
    """Statistics (N, 8) of images (N, C, S, S).

    Sums are of whole numbers in 64 bits: exact, whatever their order, so that no image's depend on the others.
    """
    step = max(1, images.shape[2] // SIDE)
    whole = images.astype(np.float64)
    rows, columns = whole[:, :, ::step], whole[:, :, :, ::step]
    some = rows[:, :, :, ::step]
    values = np.ascontiguousarray(some).reshape(len(images), -1)
    brightness = values.sum(axis=1) / values.shape[1]
    cells = [_cells(whole, count) for count in CELLS]
    squares = [
        _mean_square(values) - brightness * brightness + LEAST_ROUGHNESS,
        _mean_square(some[:, 1:] - some[:, :-1]) + LEAST_COLOUR,  # of neighbouring channels
        _roughness(rows, columns) + LEAST_ROUGHNESS,
        *(_roughness(sums, sums) / pixels**2 + LEAST_ROUGHNESS for sums, pixels in cells),
    ]
    shares = [np.count_nonzero(part, axis=1) / values.shape[1] for part in (values <= BLACK, values >= WHITE)]
    numbers = np.stack([*squares, *(share + LEAST_SHARE for share in shares)], axis=1)
    return np.column_stack((brightness / 255, np.log(numbers)))


def _mean_square(values: Floats) -> Floats:
    """The mean of each image's squares (N, ...); 0 where there are none."""
    rows = values.reshape(len(values), -1)
    means: Floats = np.einsum("ij,ij->i", rows, rows) / max(1, rows.shape[1])
    return means


def _roughness(rows: Floats, columns: Floats) -> Floats:
    """The mean square of neighbours' difference: within rows (N, C, h, W), and within columns (N, C, H, w)."""
    across = _mean_square(rows[:, :, :, 1:] - rows[:, :, :, :-1])
    return (across + _mean_square(columns[:, :, 1:] - columns[:, :, :-1])) / 2


def _cells(whole: Floats, count: int) -> tuple[Floats, int]:
    """The sums of each image's square cells, `count` or a few more along a side, and the pixels of one."""
    cell = max(1, whole.shape[2] // count)
    end = whole.shape[2] // cell * cell
    rows: Floats = reduce(np.add, (whole[:, :, place:end:cell] for place in range(cell)))
    sums: Floats = reduce(np.add, (rows[:, :, :, place:end:cell] for place in range(cell)))
    return sums, cell * cell
