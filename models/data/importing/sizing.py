"""Chooses the side that images are stored at from their original sizes."""

from collections.abc import Sequence

import numpy as np

from models.data.image_headers import Refused, identify
from models.data.importing.source import Source
from models.errors import ArchiveError
from models.text import plural

SIDES = (16, 24, 28, 32, 40, 48, 64, 96, 128, 160, 192, 224)
"""Sides to choose from. 224 is what networks for photos are designed for and ImageNet weights expect."""
KEPT_AS_IS = 64
"""Images that all have the same side, up to this one, keep it."""
NUM_LOOKED_AT = 200


def choose_size(source: Source, entries: Sequence[int]) -> tuple[int, str]:
    """The side to store images at, and why, from the headers of a few of them, evenly spread.

    The largest of SIDES that is no larger than the short side of half of the images: enlarging adds nothing, and more
    than 224 costs more than it brings.
    """
    step = max(1, len(entries) // NUM_LOOKED_AT)
    sizes = []
    for _, data in source.contents(set(entries[::step])):
        if isinstance(data, ArchiveError):
            continue
        try:
            header = identify(data)
        except Refused:
            continue
        sizes.append((header.width, header.height))
    if not sizes:
        return SIDES[-1], "no image's size could be read"
    shorts = np.array([min(size) for size in sizes])
    looked = f"{plural(len(sizes), 'image')} looked at"
    if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1] and 8 <= sizes[0][0] <= KEPT_AS_IS:
        return sizes[0][0], f"all images are {sizes[0][0]} x {sizes[0][1]} ({looked})"
    median = int(np.median(shorts))
    side = max((side for side in SIDES if side <= median), default=SIDES[0])
    reason = f"half of the images have a short side of {plural(median, 'pixel')} or more ({looked})"
    if side == SIDES[-1]:
        reason += "; 224 is what networks for photos are made for"
    return side, reason
