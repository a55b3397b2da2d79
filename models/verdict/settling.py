"""The epoch from which the first layer's kernels hardly change."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SETTLED = 0.1
"""The first layer has settled when its kernels stay within this part of their final values."""


def settling_epoch(kernels: Mapping[int, NDArray[np.floating[Any]]]) -> int | None:
    """The first epoch (from 1) from which the first layer stays within 10% of its final kernels, by relative L2.

    `kernels` are (out, in, h, w) by epoch; where not every epoch's are there, it is the first of those that are. None
    with fewer than three, or when it moved on into the last fifth of the run: it had not settled then.
    """
    epochs = sorted(kernels)
    if len(epochs) < 3:
        return None
    last, settled = epochs[-1], epochs[0]
    final = kernels[last].astype(np.float64)
    near = SETTLED * max(float(np.linalg.norm(final)), 1e-30)
    for epoch, following in reversed(
        list(itertools.pairwise(epochs))
    ):  # from the end: most of the way is not looked at
        if not np.linalg.norm(kernels[epoch] - final) <= near:
            settled = following
            break
    return settled if settled <= last - max(2, last // 5) else None
