"""Finds labels that are probably wrong, by confident learning.

Northcutt, Jiang and Chuang 2021, Confident learning: estimating uncertainty in dataset labels (JAIR 70): an image is
counted for a class if its probability is at least the mean probability of that class over the images labelled with it.
An image that is counted for another class than its label is a suspect; suspects are ordered by the margin between both.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong."""

    image: int
    label: int
    likely: int
    margin: float
    """By how much the likely class is more probable than the label's, from 0 to 1."""


def better_than_guessing(probabilities: Floats, labels: npt.NDArray[np.int64]) -> bool:
    """Whether out-of-fold predictions agree with the labels more often than always naming the largest class would.

    By more than two standard errors. Otherwise, as with a handful of images, what they say of a label is chance.
    """
    share = float(np.bincount(labels).max()) / len(labels)
    agreed = float((probabilities.argmax(axis=1) == labels).mean())
    return agreed - share > 2 * float(np.sqrt(share * (1 - share) / len(labels)))


def suspects(probabilities: Floats, labels: npt.NDArray[np.int64]) -> list[Suspect]:
    """The images whose label is probably wrong, those with the largest margin first.

    `probabilities` (N, K) have to come from classifiers that did not see the image (out of fold). Where an image is
    confidently of several classes, the most probable counts.
    """
    count, num_classes = probabilities.shape
    own = probabilities[np.arange(count), labels]
    # a class that no image has is never confident
    thresholds = np.array([own[labels == k].mean() if (labels == k).any() else np.inf for k in range(num_classes)])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    likely = confident.argmax(axis=1)
    doubted = np.flatnonzero((confident.max(axis=1) > 0) & (likely != labels))
    margins = probabilities[doubted, likely[doubted]] - own[doubted]
    order = np.argsort(-margins, kind="stable")
    return [
        Suspect(int(image), int(labels[image]), int(likely[image]), float(margin))
        for image, margin in zip(doubted[order], margins[order], strict=True)
        if margin > 0
    ]
