"""Scores of how unlike the validation images an image is, from logits (N, K) and the features before the head (N, F).

They are what the score that is served (models/evaluation/unknown.py) is compared with. Energy: Liu et al. 2020
(arXiv 2010.03759); highest probability: Hendrycks and Gimpel 2017 (arXiv 1610.02136).
Mahalanobis: Lee et al. 2018 (arXiv 1807.03888); relative: Ren et al. 2021 (arXiv 2106.09022); nearest neighbours:
Sun et al. 2022 (arXiv 2204.06507); ViM: Wang et al. 2022 (arXiv 2203.10807), with half of the dimensions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.calibration import energy
from models.evaluation.probabilities import softmax

Rows = NDArray[Any]
Score = Callable[[Rows, Rows], Rows]
NEIGHBOUR = 20
"""Which nearest neighbour's similarity counts."""
PART = 500


def feature_scores(logits: Rows, features: Rows, labels: Rows, weight: Rows, bias: Rows) -> dict[str, Score]:
    """Scores of logits and features, fitted to those of the validation split; higher is less alike.

    `weight` (K, F) and `bias` (K,) are the head's.
    """
    centres = np.stack([features[labels == number].mean(axis=0) for number in range(logits.shape[1])])
    mean = features.mean(axis=0)
    within, overall = _inverse(features - centres[labels]), _inverse(features - mean)
    bank = _normed(features)
    origin = -np.linalg.pinv(weight) @ bias
    minor = np.linalg.eigh(np.cov((features - origin).T))[1][:, : features.shape[1] // 2]
    scale = logits.max(axis=1).mean() / np.linalg.norm((features - origin) @ minor, axis=1).mean()

    def mahalanobis(_: Rows, values: Rows) -> Rows:
        nearest: Rows = np.min([_squared(values - centre, within) for centre in centres], axis=0)
        return nearest

    def relative(_: Rows, values: Rows) -> Rows:
        return mahalanobis(_, values) - _squared(values - mean, overall)

    def neighbours(_: Rows, values: Rows) -> Rows:
        parts = np.array_split(_normed(values), -(-len(values) // PART))
        return np.concatenate([-np.partition(part @ bank.T, -NEIGHBOUR, axis=1)[:, -NEIGHBOUR] for part in parts])

    def vim(own: Rows, values: Rows) -> Rows:
        scores: Rows = scale * np.linalg.norm((values - origin) @ minor, axis=1) + energy(own)
        return scores

    return {
        "energy": lambda own, _: energy(own),
        "largest logit": lambda own, _: -own.max(axis=1),
        "highest probability": lambda own, _: -softmax(own).max(axis=1),
        "mahalanobis": mahalanobis,
        "relative mahalanobis": relative,
        "neighbours": neighbours,
        "vim": vim,
    }


def _inverse(deviations: Rows) -> Rows:
    covariance = np.cov(deviations.T)
    size = len(covariance)
    return np.linalg.inv(covariance + 1e-6 * np.trace(covariance) / size * np.eye(size))


def _squared(deviations: Rows, inverse: Rows) -> Rows:
    lengths: Rows = np.sum(deviations @ inverse * deviations, axis=1)
    return lengths


def _normed(features: Rows) -> Rows:
    rows: Rows = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return rows
