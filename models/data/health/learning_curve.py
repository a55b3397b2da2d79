"""Estimates whether more images would help: a learning curve over the number of images, extrapolated to twice as many.

Errors fall with the number of images n as a + b n^-c (Hestness et al. 2017, arXiv:1712.00409; Viering and Loog 2022,
The shape of learning curves). The curve is measured with a linear classifier on features, which is fast to fit; its
curve is flatter at the end than that of a network trained from scratch, and the finding says that it is a classifier's.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.data.health.classifiers import Products, ReportShare, scores
from models.data.health.parallel import in_parallel

FRACTIONS = (0.1, 0.2, 0.4, 0.7, 1.0)
REPEATS = 3
HELD_OUT = 0.25
EXPONENTS = np.linspace(0.1, 1.0, 19)
DRAWS = 200
MIN_IMAGES = 100
RIDGE = 0.1
"""Penalty relative to the number of images."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Curve:
    """A learning curve: accuracy over the number of images, and its extrapolation to twice as many."""

    num_images: list[int]
    accuracies: list[float]
    gain: tuple[float, float]
    """Gain in accuracy from twice as many images: the 10th and the 90th percentile."""


def learning_curve(
    values: Floats, labels: npt.NDArray[np.int64], num_classes: int, progress: ReportShare = lambda share: None
) -> Curve | None:
    """Measure and extrapolate the learning curve; None for too few images. Does not change the features (N, D)."""
    if len(labels) < MIN_IMAGES:
        return None
    num_test = int(HELD_OUT * len(labels))
    sizes = [max(num_classes, int(fraction * (len(labels) - num_test))) for fraction in FRACTIONS]

    def measure(repeat: int) -> list[float]:
        order = np.argsort(np.random.PCG64(repeat).random_raw(len(labels)), kind="stable")
        test, train = order[:num_test], order[num_test:]
        products, measured = Products(values.shape[1], num_classes), list[float]()
        for size in sizes:  # each with the images of those before
            products.add(values, labels, train[products.count : size])
            predicted = scores(products.solve(RIDGE), values, test).argmax(axis=1)
            measured.append(float((predicted != labels[test]).mean()))
        return measured

    errors = np.empty((REPEATS, len(sizes)))
    for repeat, measured in enumerate(in_parallel(measure, range(REPEATS))):
        errors[repeat] = measured
        progress((repeat + 1) / REPEATS)
    mean = errors.mean(axis=0)
    # of the mean of the repeats, and never less than counting so many test images allows
    spread = np.maximum(errors.std(axis=0, ddof=1), np.sqrt(mean * (1 - mean) / num_test)) / np.sqrt(REPEATS)
    random = np.random.default_rng(0)
    gains = []
    for _ in range(DRAWS):
        drawn = np.clip(random.normal(mean, spread), 0, 1)
        level, factor, exponent = fit_power_law(np.array(sizes), drawn)
        now, then = (level + factor * n**-exponent for n in (sizes[-1], 2.0 * sizes[-1]))
        gains.append(now - then)
    low, high = np.percentile(gains, [10, 90])
    return Curve(sizes, (1 - mean).tolist(), (float(max(0, low)), float(max(0, high))))


def fit_power_law(sizes: npt.NDArray[np.int64], errors: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Fit a + b n^-c with a, b >= 0: least squares for each c of a grid. Returns (a, b, c)."""
    best = (np.inf, 0.0, 0.0, 1.0)
    for exponent in EXPONENTS:
        power = sizes.astype(float) ** -exponent
        inputs = np.stack([np.ones_like(power), power], axis=1)
        (level, factor), *_ = np.linalg.lstsq(inputs, errors, rcond=None)
        if level < 0:
            level, factor = 0.0, float(power @ errors / (power @ power))
        if factor < 0:
            level, factor = float(errors.mean()), 0.0
        loss = float(((inputs @ np.array([level, factor]) - errors) ** 2).sum())
        if loss < best[0]:
            best = (loss, float(level), float(factor), float(exponent))
    return best[1:]
