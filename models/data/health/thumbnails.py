"""Thumbnails of images and their low frequencies, by which copies are found."""

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt

SIDE = 24
"""The side of a thumbnail in pixels."""
CHUNK = 1024
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
COARSE, COARSE_COLOUR = 7, 3
"""Cosine coefficients that describe an image: 7 x 7 of brightness without the mean, 3 x 3 of each colour difference."""

Floats = npt.NDArray[np.float32]


def shrinking(size: int, side: int = SIDE) -> Floats:
    """The matrix (side, size) that averages `size` values into `side` means."""
    edges = np.linspace(0, size, side + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def thumbnails(
    *splits: npt.NDArray[np.uint8], progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Floats, Floats]:
    """Brightness (N, SIDE, SIDE) and colour differences (N, 2, COARSE_COLOUR, COARSE_COLOUR) of all images.

    Each split is uint8 (M, C, S, S), and images are numbered through all of them.
    """
    size, total, done = splits[0].shape[2], sum(map(len, splits)), 0
    shrink, colour = shrinking(size), shrinking(size, COARSE_COLOUR)
    gray = np.empty((total, SIDE, SIDE), dtype=np.float32)
    differences = np.zeros((total, 2, COARSE_COLOUR, COARSE_COLOUR), dtype=np.float32)
    for part in chain.from_iterable(map(_parts, splits)):
        rows = slice(done, done + len(part))
        light = np.tensordot(LUMA, part, (0, 1)) if part.shape[1] == 3 else part[:, 0]
        gray[rows] = shrink @ light @ shrink.T
        if part.shape[1] == 3:
            for index, channel in enumerate((0, 2)):
                differences[rows, index] = colour @ (part[:, channel] - light) @ colour.T
        done += len(part)
        progress(done, total)
    return gray, differences


def _parts(images: npt.NDArray[np.uint8]) -> Iterator[Floats]:
    step = max(1, CHUNK * 3 * 32 * 32 // max(1, images[:1].size))
    for start in range(0, len(images), step):
        yield images[start : start + step].astype(np.float32)


def cosines(count: int, side: int = SIDE) -> Floats:
    """The first rows of the discrete cosine transform (count, side), each of length 1."""
    angles = np.pi * (np.arange(side) + 0.5) * np.arange(count)[:, None] / side
    rows = np.cos(angles)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def describe(gray: Floats, differences: Floats) -> Floats:
    """Low frequencies without the mean, normalised to length 1: (N, D). Brightness and contrast do not change them."""
    rows = cosines(COARSE)
    light = (rows @ gray @ rows.T).reshape(len(gray), -1)[:, 1:] / SIDE
    centred = differences - differences.mean(axis=(2, 3), keepdims=True)
    found = np.concatenate([light, 0.5 * centred.reshape(len(gray), -1) / COARSE_COLOUR], axis=1)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(length, 1e-6), dtype=np.float32)


def mirrored(gray: Floats, differences: Floats) -> tuple[Floats, Floats]:
    """The descriptions of the mirrored images."""
    return gray[:, :, ::-1], differences[..., ::-1]
