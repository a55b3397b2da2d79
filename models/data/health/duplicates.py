"""Finds copies among images: the same pixels, or the same picture mirrored, cropped, compressed again or brightened.

Pairs whose low frequencies agree are compared in detail: one thumbnail is aligned with the other in many ways
(mirrored, cropped by up to a tenth at any side, in both directions), and their high frequencies are correlated: skies
and studio backgrounds have similar low frequencies without being copies. What all images of the dataset have in common
(common_structure.py) does not count: two shirts have similar high frequencies without being copies.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, product

import numpy as np
import numpy.typing as npt

from models.data.health.common_structure import CommonStructure, Crop
from models.data.health.thumbnails import SIDE, Floats, cosines, describe, mirrored, thumbnails
from models.progress import ReportProgress

MIN_COARSE = 0.85
"""Correlation of low frequencies from which a pair is compared in detail."""
MOST_NEAR = 12
"""Pairs that are compared in detail for each image: those with the highest correlation."""
MIN_ROUGH = 0.55
"""Correlation of high frequencies at half the size, without alignment, from which a pair is compared in detail."""
MIN_DETAIL = 0.90
"""Correlation of high frequencies from which a pair counts as copies."""
MIN_OWN = 0.75
"""Correlation of what is left of two pictures without their dataset's common structure, from which they are copies."""
SURE_DETAIL = 0.99
"""Correlation of high frequencies from which a pair counts as copies whatever its dataset's images have in common."""
MIN_COLOUR = 4.0
"""Mean difference (pixels 0 to 255) of colours from gray from which a picture has colours that are compared."""
MIN_SAME_COLOURS = 0.7
"""Correlation of colours from which two pictures have the same: a circle, green on yellow, is no copy of a red one."""
MOST_GAIN = 1.7
"""How much more than its contrast a copy's colours may have grown or shrunk: brightening changes both alike."""
SMOOTH = 3
"""Lowest frequencies (3 x 3 cosines) that are removed before the rest is compared."""
MIN_CONTRAST = 2.0
"""Standard deviation of a thumbnail's high frequencies (pixels 0 to 255) below which it is not compared."""
MIN_SHARE = 0.15
"""The same as a part of the thumbnail's standard deviation: a smooth sky is not compared either."""
CROPS = (0.0, 0.05, 0.1)
"""Parts of a side that may be cropped, both ends together."""
ROWS, BLOCK = 512, 1 << 25
"""Images that are compared with all others at once: so many, or as many as give so many pairs."""
PAIRS = 2048
REPORTED = 100


@dataclass(frozen=True)
class Pair:
    """Two images that are copies."""

    first: int
    second: int
    likeness: float
    """1 for equal pixels, else the correlation of high frequencies."""


def exact_copies(
    *splits: npt.NDArray[np.uint8], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[list[int]]:
    """Groups of two or more images with equal pixels, as image numbers counted through all splits."""
    found: dict[bytes, list[int]] = defaultdict(list)
    total = sum(map(len, splits))
    for number, image in enumerate(chain.from_iterable(splits)):
        found[hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()].append(number)
        if (number + 1) % REPORTED == 0 or number + 1 == total:
            progress(number + 1, total)
    return [group for group in found.values() if len(group) > 1]


def near_copies(
    *splits: npt.NDArray[np.uint8],
    within: bool = True,
    without: Sequence[int] = (),
    progress: ReportProgress = lambda what, done, total: None,
) -> list[Pair]:
    """Pairs of images that differ only by mirroring, cropping, brightness or compression.

    Each split is uint8 (N, C, S, S), and images are numbered through all of them. Each pair occurs once, with `first`
    below `second`, the most similar first. Without `within` only pairs of the last split with earlier ones are
    searched, which is faster. The images `without` are left out: of a thousand exact copies each pair would be found.
    """
    gray, differences = thumbnails(*splits, progress=partial(progress, "reducing the images"))
    own, mirror = describe(gray, differences), describe(*mirrored(gray, differences))
    common = CommonStructure.of(gray, _crops())
    own[list(without)] = mirror[list(without)] = 0  # which correlates with nothing
    total = len(gray)
    last = total - len(splits[-1])
    best: dict[tuple[int, int], float] = {}
    step = max(1, min(ROWS, BLOCK // max(1, total)))
    for start in range(0 if within else last, total, step):
        rows = own[start : start + step]
        for flip, other in ((False, own), (True, mirror)):
            if within:
                first, second = _coarse(rows, other[start:], later=True)
                first, second = first + start, second + start
            else:
                second, first = _coarse(rows, other[:last], later=False)
                second += start
            for at in range(0, len(first), PAIRS):
                firsts, seconds = first[at : at + PAIRS], second[at : at + PAIRS]
                same = _same_colours(gray, differences, firsts, seconds, flip)
                _close(gray, common, firsts[same], seconds[same], flip, best)
        left = max(0, total - start - step)  # images are compared with later ones: the last take the least time
        progress("searching for copies", round(total - left**2 / total) if within else total - left, total)
    pairs = [Pair(*pair, likeness) for pair, likeness in best.items()]
    return sorted(pairs, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def _coarse(rows: Floats, others: Floats, *, later: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each row the pairs with the highest correlation of low frequencies; with `later`, none with j <= i."""
    likeness = rows @ others.T
    if later:  # each pair once, and none with itself
        likeness[np.arange(len(rows))[:, None] >= np.arange(len(others))[None, :]] = 0
    most = min(MOST_NEAR, len(others))
    for row in np.flatnonzero((likeness > MIN_COARSE).sum(axis=1) > most):
        least = np.partition(likeness[row], -most)[-most]
        likeness[row, likeness[row] < least] = 0
    first, second = np.nonzero(likeness > MIN_COARSE)
    return first, second


def _same_colours(
    gray: Floats, differences: Floats, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], flip: bool
) -> npt.NDArray[np.bool_]:
    """For each pair whether the pictures may be copies by their colours; true where one of them is gray."""
    one, other = differences[first], differences[second][..., ::-1] if flip else differences[second]
    lengths = [np.sqrt(np.einsum("ncij,ncij->n", part, part)) for part in (one, other)]
    coloured = np.minimum(*lengths) >= MIN_COLOUR * np.sqrt(differences[0].size)
    agree = np.einsum("ncij,ncij->n", one, other) >= MIN_SAME_COLOURS * lengths[0] * lengths[1]
    contrasts = [np.maximum(gray[rows].std(axis=(1, 2)), MIN_CONTRAST) for rows in (first, second)]
    more, less = lengths[1] * contrasts[0], lengths[0] * contrasts[1]
    alike = (more <= MOST_GAIN * less) & (less <= MOST_GAIN * more)
    same: npt.NDArray[np.bool_] = ~coloured | (agree & alike)
    return same


def _close(
    gray: Floats,
    common: CommonStructure,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    flip: bool,
    best: dict[tuple[int, int], float],
) -> None:
    """Compare pairs in detail, and record those that are copies with their correlation."""
    one, other = gray[first], gray[second][:, :, ::-1] if flip else gray[second]
    rough = np.einsum("nij,nij->n", _detail(_halved(one)), _detail(_halved(other))) >= MIN_ROUGH
    if not rough.any():
        return
    first, second, one, other = first[rough], second[rough], one[rough], other[rough]
    (likeness, crop), (backward, backward_crop) = _overlaid(one, other), _overlaid(other, one)
    turned = backward > likeness
    likeness, crop = np.where(turned, backward, likeness), np.where(turned, backward_crop, crop)
    swap = turned[:, None, None]
    whole, part = np.where(swap, other, one), np.where(swap, one, other)
    near = likeness >= MIN_DETAIL
    copies = likeness >= SURE_DETAIL
    for number in np.unique(crop[near & ~copies]):
        rows = np.flatnonzero(near & ~copies & (crop == number))
        copies[rows] = common.own_likeness(whole[rows], part[rows], int(number)) >= MIN_OWN
    for at in np.flatnonzero(copies):
        pair = (int(first[at]), int(second[at]))
        best[pair] = max(best.get(pair, 0.0), float(likeness[at]))


def _overlaid(whole: Floats, part: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The best correlation of each pair (M, SIDE, SIDE) over all crops of `whole` that `part` may be, and that crop."""
    wanted = _detail(part)
    best, which = np.full(len(whole), -1.0, dtype=np.float32), np.zeros(len(whole), dtype=np.int64)
    for number, (down, across) in enumerate(_crops()):
        likeness = np.einsum("nij,nij->n", wanted, _detail(np.asarray(down @ whole @ across.T, np.float32)))
        better = likeness > best
        best[better], which[better] = likeness[better], number
    return best, which


def _halved(thumbnails_: Floats) -> Floats:
    """Thumbnails at half the side, where a shift by a pixel matters less."""
    halved: Floats = thumbnails_.reshape(len(thumbnails_), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
    return halved


@cache
def _crops() -> list[Crop]:
    """The crops that are tried: the matrices that enlarge a part of a thumbnail's rows and columns to its full side.

    A crop of one side alone is rare, and each more costs time: both sides lose about the same.
    """
    sides = [(np.eye(SIDE, dtype=np.float32), 0.0)]
    for missing in CROPS[1:]:
        sides += [(_enlarging(at, at + 1 - missing), missing) for at in np.linspace(0, missing, 3)]
    return [(down, across) for (down, one), (across, other) in product(sides, sides) if abs(one - other) <= 0.06]


def _enlarging(start: float, stop: float) -> Floats:
    """The matrix that enlarges a part by linear interpolation; compare `shrinking`."""
    places = (np.arange(SIDE) + 0.5) / SIDE * (stop - start) * SIDE + start * SIDE - 0.5
    distance = np.abs(places[:, None] - np.arange(SIDE))
    weights = np.maximum(0, 1 - distance)
    enlarging: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return enlarging


def _detail(thumbnails_: Floats) -> Floats:
    """The high frequencies, normalised to length 1; all 0 where there are hardly any."""
    rows = cosines(SMOOTH, thumbnails_.shape[1])
    smooth = rows.T @ (rows @ thumbnails_ @ rows.T) @ rows
    detail = thumbnails_ - smooth
    length = np.sqrt(np.einsum("nij,nij->n", detail, detail))
    least = np.maximum(MIN_CONTRAST, MIN_SHARE * thumbnails_.std(axis=(1, 2))) * thumbnails_.shape[1]
    return np.asarray(detail / np.where(length < least, np.inf, length)[:, None, None], np.float32)
