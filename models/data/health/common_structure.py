"""What the images of a dataset have in common, which two of them share without being copies.

Pictures of one kind of thing on a plain background (garments, digits, parts of a machine) are as alike as a picture
and its compressed copy. The mean and the principal components of all thumbnails describe what they share; what is left
of an image after these are removed is its own, and the same only in copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from models.data.health.thumbnails import Floats

MOST_COMPONENTS, IMAGES_A_COMPONENT = 60, 20
"""Components that are removed: at most so many, and one for so many images, else they would describe single images."""
SAMPLE = 2000
"""Images that the components are computed of."""
TINY = 1e-6

Crop = tuple[Floats, Floats]
"""Matrices (S, S) that enlarge a part of a thumbnail's rows and of its columns to the full side."""


@dataclass(frozen=True)
class CommonStructure:
    """For each crop an orthonormal basis (P, K) of what cropped thumbnails of P pixels have in common."""

    crops: Sequence[Crop]
    bases: Sequence[Floats]

    @classmethod
    def of(cls, gray: Floats, crops: Sequence[Crop]) -> Self:
        """The structure of thumbnails (N, S, S), each as it is and mirrored."""
        side = gray.shape[1]
        some = gray[np.random.default_rng(0).permutation(len(gray))[:SAMPLE]]
        rows = np.concatenate([some, some[:, :, ::-1]]).reshape(-1, side * side)
        rows = rows - rows.mean(axis=1, keepdims=True)  # brightness and contrast do not count
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
        mean = rows.mean(axis=0)
        count = min(MOST_COMPONENTS, len(gray) // IMAGES_A_COMPONENT)
        _variances, directions = np.linalg.eigh((rows - mean).T @ (rows - mean))
        common = np.stack([mean, *directions.T[len(directions) - count :]]).reshape(-1, side, side)
        return cls(crops, [_basis(down @ common @ across.T) for down, across in crops])

    def own_likeness(self, whole: Floats, part: Floats, crop: int) -> Floats:
        """The correlation of each `whole` (M, S, S), cropped, with its `part` (M, S, S), without what all images share.

        `crop` is the number of the crop.
        """
        down, across = self.crops[crop]
        cropped = np.asarray(down @ whole @ across.T, np.float32)
        first, second = self._own(cropped, crop), self._own(part, crop)
        likeness: Floats = np.einsum("mp,mp->m", first, second)
        return likeness

    def _own(self, thumbnails: Floats, crop: int) -> Floats:
        rows, basis = thumbnails.reshape(len(thumbnails), -1), self.bases[crop]
        own = rows - (rows @ basis) @ basis.T
        return np.asarray(own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), TINY), np.float32)


def _basis(patterns: Floats) -> Floats:
    """An orthonormal basis (P, K) of patterns (K - 1, S, S) and of the image of one brightness."""
    rows = patterns.reshape(len(patterns), -1)
    basis, _triangle = np.linalg.qr(np.concatenate([np.ones_like(rows[:1]), rows]).T)
    return np.asarray(basis, np.float32)
