"""An estimate of wrong labels: among the images with the highest confidence, the part whose label is unlikely."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.evaluation.probabilities import softmax

SUREST = 0.25
"""Part of the images that counts as those with the highest confidence."""
MIN_IMAGES = 100
"""The fewest images for an estimate: with fewer a handful of labels would decide."""


@dataclass(frozen=True)
class LabelDoubts:
    """Accuracy and unlikely labels among the quarter of a split's images with the highest confidence."""

    split: Literal["validation", "training"]
    num_surest: int
    accuracy: float
    unlikely: float
    """Part of them whose label is in the less likely half of the classes."""


def doubts_of(
    split: Literal["validation", "training"], logits: NDArray[np.floating], labels: NDArray[np.int64]
) -> LabelDoubts | None:
    """Compare labels (N,) with logits (N, K). None if there are too few images, or a logit is not finite.

    A label is unlikely when half of the classes or more are more probable, rounded up for an odd number of classes.
    """
    if len(labels) < MIN_IMAGES or not np.isfinite(logits).all():
        return None
    probabilities = softmax(logits)
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")[: math.ceil(SUREST * len(labels))]
    some = probabilities[surest]
    own = some[np.arange(len(surest)), labels[surest]]
    likelier = (some > own[:, None]).sum(axis=1)
    return LabelDoubts(
        split=split,
        num_surest=len(surest),
        accuracy=float((likelier == 0).mean()),
        unlikely=float((likelier >= (some.shape[1] + 1) // 2).mean()),
    )
