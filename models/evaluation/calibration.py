"""Calibration: the expected calibration error, temperature scaling, and thresholds that detect unknown images.

Expected calibration error and temperature scaling: Guo et al. 2017, On Calibration of Modern Neural Networks
(arXiv 1706.04599). Energy score: Liu et al. 2020, Energy-based Out-of-distribution Detection (arXiv 2010.03759).
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.evaluation.probabilities import Floats, log_sum_exp, softmax
from models.evaluation.unknown import UnknownScore, fit_unknown_score, threshold_keeping
from models.plain import JsonObject

NUM_BINS = 15
"""Bins of equal width, as in Guo et al."""
MIN_IMAGES = 100
"""The fewest images for a temperature: with fewer it would be fitted to these images and say little about others."""
LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are tried. Where all images are classified correctly, the best one would be 0; where the logits
tell nothing, infinity."""
KEPT = 0.95
"""Part of the validation images whose energy, or score, is at most the threshold."""
TOLERANCE = 1e-10
MAX_STEPS = 100


@dataclass(frozen=True)
class Calibration:
    """The temperature and thresholds fitted on a validation split, and the calibration errors before and after."""

    temperature: float
    """Logits are divided by it. Above 1 it lowers the highest probability, below 1 it raises it."""
    energy_threshold: float
    """The energy that 95% of the validation images do not exceed."""
    num_images: int
    accuracy: float
    confidence: float
    """Mean of the highest probability of each image, before."""
    error: float
    """Expected calibration error before."""
    calibrated_error: float
    """The same with the temperature, on the images that it was fitted on."""
    unknown: UnknownScore | None = None
    """How unlike these images another one is. None in files of versions before it, where the energy says so."""

    @classmethod
    def from_json(cls, data: JsonObject) -> Self:
        """Read what `dataclasses.asdict` gave. Raises ValueError, KeyError or TypeError for anything else."""
        unknown = data.get("unknown")
        return cls(**{**data, "unknown": UnknownScore.from_json(unknown) if unknown else None})


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies between two values."""

    low: float
    high: float
    num_images: int
    confidence: float | None
    """Its mean; None without images."""
    accuracy: float | None


def calibrate(
    logits: NDArray[np.floating], labels: NDArray[np.int64], statistics: Floats | None = None
) -> Calibration | None:
    """Fit temperature and thresholds on a validation split's logits (N, K). None if there are too few images.

    `statistics` (N, 8) are of the images themselves: see `image_statistics`.
    """
    if len(labels) < MIN_IMAGES:
        return None
    temperature = fit_temperature(logits, labels)
    before, after, energies = softmax(logits), softmax(logits, temperature), energy(logits)
    return Calibration(
        temperature=temperature,
        energy_threshold=threshold_keeping(energies, KEPT),
        num_images=len(labels),
        accuracy=float((before.argmax(axis=1) == labels).mean()),
        confidence=float(before.max(axis=1).mean()),
        error=expected_calibration_error(before, labels),
        calibrated_error=expected_calibration_error(after, labels),
        unknown=None if statistics is None else fit_unknown_score(statistics, energies, KEPT),
    )


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature, from 0.05 to 20, of the lowest mean negative log-likelihood of the labels.

    With b = 1 / temperature the mean of logsumexp(b z) - b z_label is convex in b: its derivative, the mean of
    E_p[z] - z_label, only rises. Newton's steps are taken as long as they stay between the points known to lie on
    either side of its root, halving otherwise.
    """
    values = np.asarray(logits, np.float64)
    own = values[np.arange(len(labels)), labels]
    low, high = 1 / HIGHEST, 1 / LOWEST
    inverse = 1.0
    for _ in range(MAX_STEPS):
        probabilities = softmax(values, 1 / inverse)
        means = (probabilities * values).sum(axis=1)
        slope = float((means - own).mean())
        curvature = float(((probabilities * values**2).sum(axis=1) - means**2).mean())
        if slope > 0:
            high = inverse
        else:
            low = inverse
        following = inverse - slope / curvature if curvature > 0 else math.inf
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - inverse) <= TOLERANCE * inverse or high - low <= TOLERANCE * high:
            break
        inverse = following
    return 1 / inverse


def reliability(probabilities: Floats, labels: NDArray[np.int64]) -> list[Bin]:
    """Confidence against accuracy of probabilities (N, K), in 15 bins of equal width."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    numbers = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)  # a bin holds its upper end
    counts = np.bincount(numbers, minlength=NUM_BINS)
    confidences = np.bincount(numbers, confidence, NUM_BINS)
    corrects = np.bincount(numbers, correct, NUM_BINS)
    return [
        Bin(
            low=number / NUM_BINS,
            high=(number + 1) / NUM_BINS,
            num_images=int(count),
            confidence=float(confidences[number] / count) if count else None,
            accuracy=float(corrects[number] / count) if count else None,
        )
        for number, count in enumerate(counts)
    ]


def expected_calibration_error(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """Mean distance of accuracy and confidence over the bins, weighted by their images."""
    return sum(
        bin_.num_images * abs(bin_.accuracy - bin_.confidence)
        for bin_ in reliability(probabilities, labels)
        if bin_.accuracy is not None and bin_.confidence is not None
    ) / len(labels)


def energy(logits: NDArray[np.floating]) -> Floats:
    """The energy -logsumexp(logits) of each image; the higher, the less it looks like the training images."""
    return -log_sum_exp(logits)
