"""Copies among images: the same bytes, and the same picture mirrored, cropped, compressed again or brightened.

Pairs whose low frequencies agree are looked at closely: one thumbnail is laid over the other in many ways (mirrored,
cropped by up to a tenth at any side, in both directions), and the detail that is left without the low frequencies is
compared. Detail, and not the picture itself, since skies and studio backgrounds agree without being copies.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain, product

import numpy as np
import numpy.typing as npt

from models.data.health.thumbnails import SIDE, Floats, cosines, describe, mirrored, thumbnails

MIN_COARSE = 0.85
"""Agreement of low frequencies from which a pair is looked at closely."""
MOST_NEAR = 12
"""Pairs looked at closely for each image, the likeliest."""
MIN_ROUGH = 0.55
"""Correlation of detail at half the size, laid over as they are, from which a pair is looked at closely."""
MIN_DETAIL = 0.90
"""Correlation of detail from which a pair is a copy."""
SMOOTH = 3
"""Cosines (3 x 3) that are taken out before detail is compared."""
MIN_CONTRAST = 2.0
"""Standard deviation of a thumbnail's detail, of 255, below which there is none to compare."""
MIN_SHARE = 0.15
"""Of a thumbnail's own deviation: a smooth sky has no detail either."""
CROPS = (0.0, 0.05, 0.1)
"""Parts of a side that may be missing, together of both ends."""
ROWS = 512
PAIRS = 2048


@dataclass(frozen=True)
class Pair:
    """Two images that show the same."""

    first: int
    second: int
    likeness: float
    """1 for the same pixels, else the correlation of detail."""


def exact_copies(*splits: npt.NDArray[np.uint8]) -> list[list[int]]:
    """Groups of images with the same pixels: numbers, counted through all splits, of two or more images each."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for number, image in enumerate(chain.from_iterable(splits)):
        found[hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()].append(number)
    return [group for group in found.values() if len(group) > 1]


def near_copies(
    *splits: npt.NDArray[np.uint8],
    within: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Pair]:
    """Pairs of images that are copies of each other but for a mirror, a crop, brightness or compression.

    Each split is uint8 (N, C, S, S), and images are counted through all of them. Each pair is given once, with `first`
    below `second`, the likeliest first. Without `within` only pairs of the last split with earlier ones are looked for,
    which is quicker.
    """
    made = [thumbnails(images) for images in splits]
    gray, differences = (np.concatenate(parts) for parts in zip(*made, strict=True))
    own, mirror = describe(gray, differences), describe(*mirrored(gray, differences))
    last = len(gray) - len(splits[-1])
    best: dict[tuple[int, int], float] = {}
    for start in range(0 if within else last, len(gray), ROWS):
        rows = own[start : start + ROWS]
        for flip, other in ((False, own), (True, mirror)):
            if within:
                first, second = _coarse(rows, other[start:], later=True)
                first, second = first + start, second + start
            else:
                second, first = _coarse(rows, other[:last], later=False)
                second += start
            for at in range(0, len(first), PAIRS):
                _close(gray, first[at : at + PAIRS], second[at : at + PAIRS], flip, best)
        progress(min(start + ROWS, len(gray)), len(gray))
    pairs = [Pair(*pair, likeness) for pair, likeness in best.items()]
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def _coarse(rows: Floats, others: Floats, *, later: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of rows with others whose low frequencies agree, the likeliest of each row; `later`: none with j <= i."""
    likeness = rows @ others.T
    if later:  # each pair once, and none with itself
        likeness[np.arange(len(rows))[:, None] >= np.arange(len(others))[None, :]] = 0
    most = min(MOST_NEAR, len(others))
    for row in np.flatnonzero((likeness > MIN_COARSE).sum(axis=1) > most):
        least = np.partition(likeness[row], -most)[-most]
        likeness[row, likeness[row] < least] = 0
    first, second = np.nonzero(likeness > MIN_COARSE)
    return first, second


def _close(
    gray: Floats,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    flip: bool,
    best: dict[tuple[int, int], float],
) -> None:
    """Look closely at pairs, and note those that are copies with their likeness."""
    one, other = gray[first], gray[second][:, :, ::-1] if flip else gray[second]
    rough = np.einsum("nij,nij->n", _detail(_halved(one)), _detail(_halved(other))) >= MIN_ROUGH
    if not rough.any():
        return
    first, second, one, other = first[rough], second[rough], one[rough], other[rough]
    likeness = np.maximum(_overlaid(one, other), _overlaid(other, one))
    for at in np.flatnonzero(likeness >= MIN_DETAIL):
        pair = (int(first[at]), int(second[at]))
        best[pair] = max(best.get(pair, 0.0), float(likeness[at]))


def _overlaid(whole: Floats, part: Floats) -> Floats:
    """The best correlation of detail of each pair (M, SIDE, SIDE), with `part` taken for any crop of `whole`."""
    wanted = _detail(part)
    best = np.full(len(whole), -1.0, dtype=np.float32)
    for rows, columns in product(_crops(), _crops()):
        if abs(rows[1] - columns[1]) > 0.06:
            continue  # a crop of one side alone is rare, and each more costs time
        found = _detail(np.asarray(rows[0] @ whole @ columns[0].T, np.float32))
        np.maximum(best, np.einsum("nij,nij->n", wanted, found), out=best)
    return best


def _halved(thumbnails_: Floats) -> Floats:
    """At half the side: a shift by a pixel matters less."""
    halved: Floats = thumbnails_.reshape(len(thumbnails_), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
    return halved


@cache
def _crops() -> list[tuple[Floats, float]]:
    """Matrices that take a crop of a thumbnail's rows to a whole thumbnail, and what each leaves out."""
    found = [(np.eye(SIDE, dtype=np.float32), 0.0)]
    for missing in CROPS[1:]:
        found += [(_enlarging(at, at + 1 - missing), missing) for at in np.linspace(0, missing, 3)]
    return found


def _enlarging(start: float, stop: float) -> Floats:
    """As `shrinking`, for a part that is enlarged: linear between the values."""
    places = (np.arange(SIDE) + 0.5) / SIDE * (stop - start) * SIDE + start * SIDE - 0.5
    distance = np.abs(places[:, None] - np.arange(SIDE))
    weights = np.maximum(0, 1 - distance)
    enlarging: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return enlarging


def _detail(thumbnails_: Floats) -> Floats:
    """What is left without the lowest frequencies, of length 1; 0 where there is none."""
    rows = cosines(SMOOTH, thumbnails_.shape[1])
    smooth = rows.T @ (rows @ thumbnails_ @ rows.T) @ rows
    detail = thumbnails_ - smooth
    length = np.sqrt(np.einsum("nij,nij->n", detail, detail))
    least = np.maximum(MIN_CONTRAST, MIN_SHARE * thumbnails_.std(axis=(1, 2))) * thumbnails_.shape[1]
    return np.asarray(detail / np.where(length < least, np.inf, length)[:, None, None], np.float32)
