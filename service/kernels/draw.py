"""Rendering of a convolution's kernels, as a picture without resampling and as JSON."""

import textwrap
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidRequest
from service.drawing.canvas import DPI, INK, MUTED, check_format, drawing
from service.drawing.sheet import Sheet
from service.drawing.text import fit
from service.kernels import tiles

MAX_SCALE = 64
TARGET_WIDTH = 1180  # pixels that the tiles fill at most, when no scale is asked for
MAX_PIXELS = 10_000_000
MARGIN, LINE = 32, 24  # pixels
POINT = 72 / DPI
"""Points of a pixel: the sheet is laid out in pixels, so that the picture's are the PNG's."""
MIN_WIDTH = 860
KEPT_END = 40
"""Last characters of a title, kept when it is truncated: they name the layer and the epoch."""
MAX_JSON_VALUES = 300_000


def render_kernels(
    kernels: NDArray[np.floating],
    *,
    title: str,
    scaling: str = "layer",
    format: str = "png",  # noqa: A002
    scale: int | None = None,
    columns: int | None = None,
) -> bytes:
    """Draw a convolution's weight (out, in, height, width): a tile a kernel if it has one or three input channels.

    Otherwise a tile a pair of channels: a row an output channel, a column an input channel. `title` should name the
    experiment, the layer and the epoch; shape and scaling are written below it. `scale` is pixels a
    weight, `columns` how many kernels stand side by side.
    """
    check_format(format)
    tiles.check_scaling(scaling)
    if scale is not None and not 1 <= scale <= MAX_SCALE:
        raise InvalidRequest(f"scale is {scale}; a weight is drawn 1 to {MAX_SCALE} pixels wide", fix="leave scale out")
    tiles.check_kernels(kernels)
    grid = tiles.lay_out(kernels, scaling, columns)
    scale = scale or fitting_scale(grid)
    gap = gap_of(grid, scale)
    height, width = tiles.mosaic_size(grid, scale, gap)
    if height * width > MAX_PIXELS:
        raise InvalidRequest(
            f"scale {scale} makes a picture of {width} x {height} pixels, more than {MAX_PIXELS // 1_000_000} million",
            fix="use a smaller scale",
        )
    with drawing():
        sheet = draw_tiles(tiles.mosaic(grid, scale, gap), grid, _notes(kernels, grid, scaling), title, scale, gap)
        return sheet.save(format, title=title)


def fitting_scale(grid: tiles.Grid) -> int:
    """Return pixels per weight, so that the tiles fill the usual width, with a maximum for few tiles."""
    height, width = grid.images.shape[1:3]
    widest = TARGET_WIDTH / (grid.columns * (width + 0.4))
    highest = TARGET_WIDTH / (grid.rows * (height + 0.4))
    return int(max(1, min(widest, highest, 120 / max(width, height), 40)))


def gap_of(grid: tiles.Grid, scale: int) -> int:
    """Return the gap between tiles in pixels: less than half a weight, one pixel between single weights."""
    single = grid.images.shape[1] * grid.images.shape[2] == 1
    return 1 if single else max(1, round(0.4 * scale))


def _notes(kernels: NDArray[np.floating], grid: tiles.Grid, scaling: str) -> list[str]:
    """Return the lines below the title: shape, scaling, constant kernels, non-finite weights."""
    out, into, height, width = kernels.shape
    ends = "dark" if grid.colour else "black", "bright" if grid.colour else "white"
    span = f"{ends[0]} {signed(grid.minimum)}, {ends[1]} {signed(grid.maximum)}"
    how = (
        f"Scaled over the layer: {span}."
        if scaling == "layer"
        else f"Each kernel scaled by itself: {ends[0]} its lowest weight, {ends[1]} its highest."
    )
    shape = f"{out} kernel{'s' if out > 1 else ''} of {into} \u00d7 {height} \u00d7 {width}"
    drawn = ", input channels as red, green, blue" if grid.colour else ""
    notes = [f"{shape}{drawn}.", how]
    if grid.shown != (out, into):
        parts = [
            f"the first {shown} of {total} {what}"
            for shown, total, what in zip(grid.shown, (out, into), ("output channels", "input channels"), strict=True)
            if shown < total
        ]
        notes.append(f"Shown: {' and '.join(parts)}.")
    if grid.num_constant:
        drawn = " and drawn mid-grey" if scaling == "kernel" or grid.minimum == grid.maximum else ""
        notes.append(f"{grid.num_constant} of {out} kernels {_are(grid.num_constant)} constant{drawn}.")
    if grid.num_not_finite:
        notes.append(f"Weights that are not finite, drawn in pink: {grid.num_not_finite}.")
    return notes


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def signed(value: float) -> str:
    """Three digits, with a minus sign."""
    return f"{value:.3g}".replace("-", "\u2212")


def draw_tiles(
    picture: NDArray[np.uint8], grid: tiles.Grid, notes: list[str], title: str, scale: int, gap: int
) -> Sheet:
    """Draw the sheet, laid out in whole pixels from the upper left corner, so that the image is not resampled."""
    height, width = picture.shape[:2]
    room = 66 if grid.matrix else 16 + 11 * len(str(len(grid.images)))  # for numbers at the left
    total_width = max(MIN_WIDTH, width + 2 * MARGIN + room)
    per_line = int((total_width - 2 * MARGIN) / (8.5 * DPI / 72 * 0.56))
    lines = [line for note in notes for line in textwrap.wrap(note, per_line)]
    header = MARGIN + 34 + LINE * len(lines) + (58 if grid.matrix else 20)
    total_height = header + height + MARGIN
    left = MARGIN + room
    sheet = Sheet(total_width * POINT, total_height * POINT)
    sheet.picture((left - 1) * POINT, (total_height - header + 1) * POINT, picture)  # the first tile is within a frame

    def write(x: float, y: float, text: str, size: float, color: str = MUTED, **style: Any) -> None:
        sheet.words(x * POINT, (total_height - y) * POINT, text, size=size, color=color, **style)

    heading = fit(title, (total_width - 2 * MARGIN) * POINT, 12, bold=True, keep_end=KEPT_END)
    write(MARGIN, MARGIN, heading, 12, INK, bold=True, up="top")
    for number, line in enumerate(lines):
        write(MARGIN, MARGIN + 36 + LINE * number, line, 8.5, up="top")
    tile = grid.images.shape[1] * scale + gap
    for row in _labelled(grid.rows, tile) if len(grid.images) > 1 else ():
        index = row if grid.matrix else row * grid.columns
        write(left - 8, header + row * tile + (tile - gap) / 2, str(index), 7.5, across="right", up="center")
    if grid.matrix:
        tile = grid.images.shape[2] * scale + gap
        for column in _labelled(grid.columns, tile):
            middle = left + column * tile + (tile - gap) / 2
            write(middle, header - 6, str(column), 7.5, across="center", up="bottom")
        write(left, header - 28, "input channel", 7.5, up="bottom")
        write(MARGIN, header, "output channel", 7.5, across="right", up="center", turned=True)
    return sheet


def _labelled(count: int, pixels: int) -> range:
    """Return which of `count` tiles get a number, so that numbers do not overlap."""
    for step in (1, 2, 4, 8, 16, 32):
        if step * pixels >= 46:
            return range(0, count, step)
    return range(0, count, 64)


class KernelJson(TypedDict):
    """One kernel's raw weights."""

    index: int
    """Of the output channel, from 0."""
    minimum: float
    """Drawn as the darkest."""
    maximum: float
    constant: bool
    values: Any
    """Nested lists (in, height, width); null where not finite."""


class KernelGridJson(TypedDict):
    """A convolution's kernels as numbers."""

    layer: str
    epoch: int | str | None
    scaling: str
    shape: list[int]
    """(out, in, height, width)."""
    mode: str
    """rgb or gray."""
    minimum: float
    maximum: float
    shown: int
    """How many of the kernels are there."""
    kernels: list[KernelJson]


def kernel_grid_json(
    kernels: NDArray[np.floating], *, layer: str, epoch: int | str | None = None, scaling: str = "layer"
) -> KernelGridJson:
    """The same kernels as numbers: raw weights by output channel, and the limits that the picture scales them by.

    Values that are not finite become null. At most 300,000 weights are returned; `shown` is how many kernels they are.
    """
    tiles.check_scaling(scaling)
    tiles.check_kernels(kernels)
    rows = tiles.look_through(kernels)
    low, high = rows.limits(scaling)
    shown = min(len(kernels), MAX_JSON_VALUES // kernels[0].size)
    return {
        "layer": layer,
        "epoch": epoch,
        "scaling": scaling,
        "shape": list(kernels.shape),
        "mode": "rgb" if kernels.shape[1] == 3 else "gray",
        "minimum": rows.minimum,
        "maximum": rows.maximum,
        "shown": shown,
        "kernels": [
            {
                "index": index,
                "minimum": float(low[index]),
                "maximum": float(high[index]),
                "constant": bool(rows.constant[index]),
                "values": _plain(kernels[index]),
            }
            for index in range(shown)
        ],
    }


def _plain(values: NDArray[np.floating]) -> Any:
    """Nested lists of the shortest decimals that give the same 32-bit floats again; None where not finite."""
    short: NDArray[Any] = values.astype(np.float32).astype("U16").astype(np.float64)
    if not np.isfinite(short).all():
        short = short.astype(object)
        short[~np.isfinite(values)] = None
    return short.tolist()
