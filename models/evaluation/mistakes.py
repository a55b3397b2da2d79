"""The wrongly classified images, the most confident predictions first."""

import numpy as np
from numpy.typing import NDArray

from models.evaluation.probabilities import Floats


def surest_mistakes(
    probabilities: Floats, labels: NDArray[np.int64], *, label: int | None = None, predicted: int | None = None
) -> NDArray[np.int64]:
    """Rows of probabilities (N, K) whose highest one is not the label's, by falling confidence.

    `label` and `predicted` keep only images of a class, or predicted as one.
    """
    chosen = probabilities.argmax(axis=1)
    wrong = chosen != labels
    if label is not None:
        wrong &= labels == label
    if predicted is not None:
        wrong &= chosen == predicted
    rows = np.flatnonzero(wrong)
    return rows[np.argsort(-probabilities[rows, chosen[rows]], kind="stable")]
