"""The confusion matrix, and figures computed from it: precision, recall, F1, the most confused pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of one class, with counts. A figure is None where it would be 0 divided by 0."""

    num_images: int
    """Images of this class."""
    num_predicted: int
    """Images that are predicted as this class."""
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Pair:
    """Images of one class that are predicted as another one."""

    label: int
    predicted: int
    count: int
    share: float
    """Of the images of `label`."""


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int) -> Counts:
    """Counts (K, K): a row is an image's class, a column its predicted class."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes).astype(np.int64)


def class_figures(matrix: Counts) -> list[ClassFigures]:
    """Precision, recall and F1 of each class."""
    correct, own, taken = matrix.diagonal().tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    return [
        ClassFigures(
            num_images=images,
            num_predicted=predicted,
            precision=hits / predicted if predicted else None,
            recall=hits / images if images else None,
            f1=2 * hits / (images + predicted) if images + predicted else None,
        )
        for hits, images, predicted in zip(correct, own, taken, strict=True)
    ]


def macro_average(values: list[float | None]) -> float | None:
    """The mean over the classes that have a figure."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def most_confused(matrix: Counts, count: int) -> list[Pair]:
    """The pairs of classes with the most mistakes; of equally many, those of the rarer class first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    own = matrix.sum(axis=1)
    rows, columns = np.nonzero(wrong)
    counts = wrong[rows, columns]
    shares = counts / own[rows]
    order = np.lexsort((columns, rows, -shares, -counts))[:count]
    return [Pair(int(rows[i]), int(columns[i]), int(counts[i]), float(shares[i])) for i in order]
