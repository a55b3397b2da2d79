"""Finds images of a single colour, very dark ones and very blurred ones.

The measures are those of cleanvision (cleanlab, github.com/cleanlab/cleanvision): dark by the 99th percentile of
perceived brightness, blurred by the variance of an edge filter. Here the variance of the Laplacian (Pech-Pacheco et al.
2000, Diatom autofocusing in brightfield microscopy) is divided by the image's own variance and compared with that of
the other images of the set, since it depends on what the pictures show and on their size.
"""

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt

from models.data.health.report import Finding, Severity, finding
from models.data.health.thumbnails import LUMA
from models.text import plural

CONSTANT_STD = 2.0
"""Standard deviation (pixels 0 to 255) below which an image counts as one colour."""
DARK = 0.32
"""99th percentile of brightness (0 to 1) below which an image is dark; cleanvision's threshold."""
BLURRED = 0.004
BLURRED_OF_MEDIAN = 0.1
"""An image is blurred if its measure is below both: the first alone, and the second times the set's median."""
ROUNDING = 20 / 12
"""Variance that rounding to whole numbers (1/12) adds to the Laplacian, whose squared weights sum to 20."""
MIN_SIDE = 16
"""The smallest side of images on which blur is measured."""
CHUNK_BYTES = 16 << 20

Floats = npt.NDArray[np.float32]


def measure(
    *splits: npt.NDArray[np.uint8], progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Floats, Floats, Floats]:
    """Standard deviation (of 255), 99th percentile of brightness (of 1) and sharpness of each image.

    Each split is uint8 (N, C, S, S), and images are numbered through all of them.
    """
    total, done = sum(map(len, splits)), 0
    deviation, bright, sharp = (np.zeros(total, dtype=np.float32) for _ in range(3))
    for part in chain.from_iterable(map(_parts, splits)):
        rows = slice(done, done + len(part))
        light = np.tensordot(LUMA, part, (0, 1)) if part.shape[1] == 3 else part[:, 0]
        deviation[rows] = part.std(axis=(2, 3)).max(axis=1)
        bright[rows] = np.percentile(light.reshape(len(light), -1), 99, axis=1) / 255
        inner = light[:, 1:-1, 1:-1]
        laplacian = light[:, :-2, 1:-1] + light[:, 2:, 1:-1] + light[:, 1:-1, :-2] + light[:, 1:-1, 2:] - 4 * inner
        if inner.size:
            edges = np.maximum(laplacian.var(axis=(1, 2)) - ROUNDING, 0)
            sharp[rows] = edges / np.maximum(light.var(axis=(1, 2)), 1e-3)
        done += len(part)
        progress(done, total)
    return deviation, bright, sharp


def _parts(images: npt.NDArray[np.uint8]) -> Iterator[Floats]:
    step = max(1, CHUNK_BYTES // 4 // max(1, images[:1].size))
    for start in range(0, len(images), step):
        yield images[start : start + step].astype(np.float32)


def quality_findings(deviation: Floats, bright: Floats, sharp: Floats, side: int) -> list[Finding]:
    """Findings on constant, dark and blurred images; each image is in one of them at most."""
    constant = deviation < CONSTANT_STD
    dark = ~constant & (bright < DARK)
    seen = ~constant & ~dark
    limit = min(BLURRED, BLURRED_OF_MEDIAN * float(np.median(sharp[seen]))) if seen.any() else 0.0
    blurred = seen & (sharp < limit) & (side >= MIN_SIDE)
    found = []
    for code, mask, what in (
        ("pixels.constant", constant, "of one colour: nothing can be learned from it"),
        ("pixels.dark", dark, "very dark"),
        ("pixels.blurred", blurred, "very blurred"),
    ):
        ids = np.flatnonzero(mask).tolist()
        if ids:
            number = f"{plural(len(ids), 'image')} {'is' if len(ids) == 1 else 'are'}"
            found.append(finding(code, Severity.WARNING, f"{number} {what}", ids))
    return found
