"""Layout of kernels as tiles, scaled to 0..1 and assembled into one image by repeating pixels."""

from dataclasses import dataclass
from typing import Any, Literal

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
FRAME = (200, 200, 200)
"""A line of one pixel around each tile: a white one would not be seen on the white sheet."""


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


CHUNK_VALUES = 2**20
"""Weights processed at once, to bound the memory for large layers."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The lowest and highest finite weight of every output channel of a layer; 0 where there is none."""

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    minimum: float
    """The lowest finite weight of the layer; 0 where there is none."""
    maximum: float
    constant: NDArray[np.bool_]
    """Which kernels have the same finite value everywhere."""
    num_not_finite: int

    def limits(self, scaling: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the limits that each output channel is scaled between: its own, or the layer's."""
        if scaling == "kernel":
            return self.lowest, self.highest
        return np.full_like(self.lowest, self.minimum), np.full_like(self.highest, self.maximum)


def check_kernels(kernels: NDArray[np.floating]) -> None:
    """Check that a tensor is a convolution's weight and not empty. Raises InvalidRequest."""
    if kernels.ndim != 4 or 0 in kernels.shape:
        raise InvalidRequest(
            f"a weight of shape {tuple(kernels.shape)} has no kernels; a convolution's has four dimensions",
            fix="choose a convolution; GET .../layers lists them",
        )


def look_through(kernels: NDArray[np.floating]) -> Rows:
    """Compute the limits of a layer, a few output channels at a time."""
    step = max(1, CHUNK_VALUES // kernels[0].size)
    parts = [_look_at(np.asarray(kernels[at : at + step], np.float64)) for at in range(0, len(kernels), step)]
    low, high, constant = (np.concatenate([part[place] for part in parts]) for place in range(3))
    finite = low <= high
    minimum, maximum = (float(low[finite].min()), float(high[finite].max())) if finite.any() else (0.0, 0.0)
    not_finite = sum(part[3] for part in parts)
    return Rows(np.where(finite, low, 0), np.where(finite, high, 0), minimum, maximum, constant, not_finite)


def _look_at(kernels: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], int]:
    flat = kernels.reshape(len(kernels), -1)
    finite = np.isfinite(flat)
    low = np.where(finite, flat, np.inf).min(axis=1)
    high = np.where(finite, flat, -np.inf).max(axis=1)
    return low, high, (flat == flat[:, :1]).all(axis=1) & finite[:, 0], int((~finite).sum())


def check_scaling(scaling: str) -> None:
    """Check the name of a scaling. Raises InvalidRequest."""
    if scaling not in SCALINGS:
        raise InvalidRequest(
            f"scaling is '{scaling[:20]}'; kernels are scaled by layer or by kernel", fix="use layer or kernel"
        )


def scale(kernels: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (out, in, height, width) from 0 to 1 between the limits (out,) of each output channel.

    Where both limits are the same number it becomes 0.5. What is not finite becomes NaN.
    """
    low, span = low.reshape(-1, 1, 1, 1), (high - low).reshape(-1, 1, 1, 1)
    scaled: NDArray[np.float64] = np.where(span > 0, (kernels - low) / np.where(span > 0, span, 1), CONSTANT)
    return np.where(np.isfinite(kernels), scaled, np.nan)


def lay_out(kernels: NDArray[np.floating], scaling: str, columns: int | None = None) -> Grid:
    """The tiles of a convolution's weight (out, in, height, width): in colour if it has three input channels.

    `columns` is how many kernels stand side by side, unless a tile is a pair of channels; about a square without it.
    """
    out, into = kernels.shape[:2]
    matrix = into not in (1, 3)
    shown = (min(out, MAX_SIDE), min(into, MAX_SIDE)) if matrix else (min(out, MAX_KERNELS), into)
    rows_of = look_through(kernels)
    low, high = rows_of.limits(scaling)
    some = np.asarray(kernels[: shown[0], : shown[1]], np.float64)
    scaled = scale(some, low[: shown[0]], high[: shown[0]])
    if matrix:
        gray = scaled.reshape(-1, *kernels.shape[2:])
        rows, across = shown
    else:
        gray = scaled[:, 0]
        across = columns or _columns(shown[0])
        rows = -(-shown[0] // across)
    images = scaled.transpose(0, 2, 3, 1) if into == 3 else np.repeat(gray[..., None], 3, axis=3)
    return Grid(
        images=_to_bytes(images),
        rows=rows,
        columns=across,
        matrix=matrix,
        colour=into == 3,
        shown=shown,
        minimum=rows_of.minimum,
        maximum=rows_of.maximum,
        num_constant=int(rows_of.constant.sum()),
        num_not_finite=rows_of.num_not_finite,
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
    """Return height and width of the image that `mosaic` will make, the outer frame included."""
    height, width = grid.images.shape[1] * scale, grid.images.shape[2] * scale
    return grid.rows * (height + gap) - gap + 2, grid.columns * (width + gap) - gap + 2


def mosaic(grid: Grid, scale: int, gap: int) -> NDArray[np.uint8]:
    """One image (height, width, 3): each weight a square of `scale` pixels, `gap` pixels between framed tiles."""
    big = grid.images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width = big.shape[:3]
    picture = np.full((*mosaic_size(grid, scale, gap), 3), 255, dtype=np.uint8)
    for index in range(count):
        row, column = divmod(index, grid.columns)
        top, left = 1 + row * (height + gap), 1 + column * (width + gap)
        picture[top - 1 : top + height + 1, left - 1 : left + width + 1] = FRAME
        picture[top : top + height, left : left + width] = big[index]
    return picture
