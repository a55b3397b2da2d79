"""Occlusion: how much a class's logit falls when a part of the image is covered.

Zeiler and Fergus 2013 (arXiv 1311.2901).

It takes no gradients, so it is computed here, with the session that predicts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.preprocessing import Preprocessing

WINDOWS_A_SIDE = 6
"""A window's side is this part of the image's; windows overlap by half."""

Window = tuple[slice, slice]


def windows_of(side: int) -> list[Window]:
    """Square windows over an image of `side` pixels; those at the edges are cut off: corners are covered alone, too."""
    size = max(2, -(-side // WINDOWS_A_SIDE))
    step = size // 2
    spans = [slice(max(0, start), min(side, start + size)) for start in range(step - size, side, step)]
    return [(rows, columns) for rows in spans for columns in spans]


def covered(pixels: NDArray[np.uint8], windows: Sequence[Window], wanted: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    """The image (C, side, side) with each window in the mean colour, which a network sees as 0."""
    mean = np.rint(255 * np.asarray(wanted.mean)).astype(np.uint8).reshape(-1, 1, 1)
    for rows, columns in windows:
        image = pixels.copy()
        image[:, rows, columns] = mean
        yield image


def relevance(side: int, windows: Sequence[Window], falls: Sequence[float]) -> NDArray[np.float64]:
    """A map (side, side): of each pixel the mean fall of the logit over the windows that cover it."""
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for (rows, columns), fall in zip(windows, falls, strict=True):
        total[rows, columns] += fall
        count[rows, columns] += 1
    mean: NDArray[np.float64] = total / count
    return mean
