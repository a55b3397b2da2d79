"""Kernels as tiles: scaled to 0..1, laid out, and put together into one image with nothing blurred."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidRequest

Scaling = Literal["layer", "kernel"]
SCALINGS: tuple[Scaling, ...] = ("layer", "kernel")

MAX_KERNELS = 1024
"""Tiles of a layer that is drawn one tile a kernel."""
MAX_SIDE = 64
"""Output and input channels of a layer that is drawn one tile a channel pair: 4,096 tiles at most."""

NOT_FINITE = (214, 39, 140)  # a colour that no grey or weak colour is mistaken for
CONSTANT = 0.5


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles in rows and columns.

    `images` is (tiles, height, width, 3) uint8, one pixel a weight, row after row; `rows` x `columns` places hold
    them. In a `matrix` a row is an output channel and a column an input channel; otherwise tiles are just wrapped.
    """

    images: NDArray[np.uint8]
    rows: int
    columns: int
    matrix: bool
    colour: bool
    shown: tuple[int, int]
    """Output and input channels that are in the images."""
    minimum: float
    maximum: float
    num_constant: int
    num_not_finite: int


def check_kernels(kernels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Refuse what is not a convolution's weight of at least one value."""
    if kernels.ndim != 4 or 0 in kernels.shape:
        raise InvalidRequest(
            f"a weight of shape {tuple(kernels.shape)} has no kernels; a convolution's has four dimensions",
            fix="choose a convolution; GET .../layers lists them",
        )
    return kernels.astype(np.float64)


def check_scaling(scaling: str) -> None:
    """Refuse a way of scaling that does not exist."""
    if scaling not in SCALINGS:
        raise InvalidRequest(
            f"scaling is '{scaling[:20]}'; kernels are scaled by layer or by kernel", fix="use layer or kernel"
        )


def scale_kernels(kernels: NDArray[np.float64], scaling: str) -> NDArray[np.float64]:
    """Weights from 0 (the lowest) to 1 (the highest) over the whole layer, or over each output channel's kernel.

    A kernel, or layer, that is the same everywhere has no lowest: it becomes 0.5. What is not finite stays NaN.
    """
    values = np.where(np.isfinite(kernels), kernels, np.nan)
    axes = (0, 1, 2, 3) if scaling == "layer" else (1, 2, 3)
    low, high = lowest(values, axes), highest(values, axes)
    span = high - low
    scaled: NDArray[np.float64] = np.where(span > 0, (values - low) / np.where(span > 0, span, 1), CONSTANT)
    return np.where(np.isnan(values), np.nan, scaled)


def lowest(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """The lowest finite value along the axes, which are kept; 0 where there is none."""
    found: NDArray[np.float64] = np.where(np.isfinite(values), values, np.inf).min(axis=axes, keepdims=True)
    return np.where(np.isfinite(found), found, 0)


def highest(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """The highest finite value along the axes, which are kept; 0 where there is none."""
    return -lowest(-values, axes)


def constant_kernels(kernels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which kernels (by output channel) have the same finite value everywhere."""
    flat = kernels.reshape(len(kernels), -1)
    same: NDArray[np.bool_] = (flat == flat[:, :1]).all(axis=1)  # NaN equals nothing
    return same & np.isfinite(flat[:, 0])


def lay_out(kernels: NDArray[np.float64], scaling: str) -> Grid:
    """The tiles of a convolution's weight (out, in, height, width): in colour if it looks at three channels."""
    out, into = kernels.shape[:2]
    matrix = into not in (1, 3)
    shown = (min(out, MAX_SIDE), min(into, MAX_SIDE)) if matrix else (min(out, MAX_KERNELS), into)
    scaled = scale_kernels(kernels, scaling)[: shown[0], : shown[1]]
    if matrix:
        gray = scaled.reshape(-1, *kernels.shape[2:])
        rows, columns = shown
    else:
        gray = scaled[:, 0]
        columns = _columns(shown[0])
        rows = -(-shown[0] // columns)
    images = scaled.transpose(0, 2, 3, 1) if into == 3 else np.repeat(gray[..., None], 3, axis=3)
    return Grid(
        images=_to_bytes(images),
        rows=rows,
        columns=columns,
        matrix=matrix,
        colour=into == 3,
        shown=shown,
        minimum=float(lowest(kernels, (0, 1, 2, 3)).item()),
        maximum=float(highest(kernels, (0, 1, 2, 3)).item()),
        num_constant=int(constant_kernels(kernels).sum()),
        num_not_finite=int((~np.isfinite(kernels)).sum()),
    )


def _columns(count: int) -> int:
    """A grid about twice as wide as high, without a ragged last row if there is a way."""
    ideal = max(1.0, np.sqrt(2 * count))
    widths = range(max(1, int(ideal / 1.5)), int(ideal * 1.5) + 2)
    return min(widths, key=lambda width: (-count % width > 0, abs(width - ideal)))


def _to_bytes(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    bad = np.isnan(images).any(axis=3)
    pixels = np.rint(255 * np.nan_to_num(images)).astype(np.uint8)
    pixels[bad] = NOT_FINITE
    return pixels


def mosaic_size(grid: Grid, scale: int, gap: int) -> tuple[int, int]:
    """Height and width that `mosaic` will have."""
    height, width = grid.images.shape[1] * scale, grid.images.shape[2] * scale
    return grid.rows * (height + gap) - gap, grid.columns * (width + gap) - gap


def mosaic(grid: Grid, scale: int, gap: int) -> NDArray[np.uint8]:
    """One image (height, width, 3): each weight a square of `scale` pixels, `gap` white pixels between tiles."""
    big = grid.images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width = big.shape[:3]
    picture = np.full((*mosaic_size(grid, scale, gap), 3), 255, dtype=np.uint8)
    for index in range(count):
        row, column = divmod(index, grid.columns)
        top, left = row * (height + gap), column * (width + gap)
        picture[top : top + height, left : left + width] = big[index]
    return picture
