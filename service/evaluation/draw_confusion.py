"""Draws a confusion matrix: correct predictions in blue, wrong ones in orange, both by their share of the row."""

import numpy as np
from numpy.typing import NDArray

from models.evaluation.confusion import Counts, class_figures
from models.text import percent, plural
from service.drawing.canvas import DPI, INK, MUTED, PALETTE, drawing
from service.drawing.sheet import Sheet
from service.drawing.text import fit, width_of

POINT = 72 / DPI
"""Points of a pixel: cells are whole pixels of the PNG, so that none is blurred."""
RIGHT, WRONG = (np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) for color in PALETTE[:2])
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
WHITE_BELOW = 135
"""Luminance, of 255, of a cell in which a white number is more legible than a black one."""
MARGIN = 22.0
TARGET = 1000
"""Pixels that the cells fill, about."""
LARGEST_CELL, NUMBERED_CELL, NAMED_CELL = 150, 34, 12
"""Pixels of the side of a cell: of few classes, the smallest that a count is written into, and that has a name."""
MOST_NAMED = 120
"""Classes that all have their names beside the cells; of more, every second, third, ... has."""
LONGEST_NAME = 120.0
"""Points of a class's name before it is cut."""
SMALLEST_NAME, LARGEST_NAME = 4.6, 8.5
NUMBER_SIZES = (8.5, 7.5, 6.5)
FIGURES_WIDTH = 46.0
KEPT_END = 28


def render_confusion(matrix: Counts, names: tuple[str, ...], *, title: str, format: str = "png") -> bytes:  # noqa: A002
    """Draw counts (K, K): a row is an image's class, a column the predicted class."""
    with drawing():
        return _draw(matrix, names, title).save(format, title=title)


def _draw(matrix: Counts, names: tuple[str, ...], title: str) -> Sheet:
    count = len(names)
    cell = max(NAMED_CELL if count <= MOST_NAMED else 1, min(LARGEST_CELL, TARGET // count))
    side = cell * POINT
    every = max(1, int(np.ceil(SMALLEST_NAME * 1.15 / side)))  # classes a name, where there are too many for all
    size = min(LARGEST_NAME, max(SMALLEST_NAME, side * every / 1.25))
    labels = [fit(name, LONGEST_NAME, size) for name in names]
    room = max(width_of(label, size) for label in labels[::every]) + 12
    numbered = cell >= NUMBERED_CELL
    left = _whole(MARGIN + 18 + room)
    below = (22.0 if numbered else 0.0) + MARGIN
    total = count * side
    width = max(left + total + (FIGURES_WIDTH if numbered else 0) + MARGIN, 480.0)
    header = 66.0 + room + 14
    height = _whole(header + total + below)
    top = height - _whole(header)
    sheet = Sheet(width, height)
    _write_head(sheet, matrix, title)
    sheet.picture(left, top, _cells(matrix, cell))
    for number in range(0, count, every):
        middle = (number + 0.5) * side
        sheet.words(left - 6, top - middle, labels[number], size=size, color=INK, across="right", up="center")
        sheet.words(left + middle, top + 6, labels[number], size=size, color=INK, up="center", turned=True)
    sheet.words(left, top + room + 2, "predicted class", size=9, color=MUTED, up="bottom")
    sheet.words(
        MARGIN + 4,
        top - total / 2,
        "class of the image",
        size=9,
        color=MUTED,
        across="center",
        up="center",
        turned=True,
    )
    if numbered:
        _write_counts(sheet, matrix, left, top, side)
        _write_figures(sheet, matrix, left, top, side)
    return sheet


def _whole(length: float) -> float:
    """A length as whole pixels of the PNG, in points."""
    return round(length / POINT) * POINT


def _write_head(sheet: Sheet, matrix: Counts, title: str) -> None:
    total, right = int(matrix.sum()), int(matrix.trace())
    top = sheet.height - MARGIN
    heading = fit(title, sheet.width - 2 * MARGIN, 12, bold=True, keep_end=KEPT_END)
    sheet.words(MARGIN, top, heading, size=12, color=INK, bold=True, up="top")
    lines = [f"{percent(right / total)} of {plural(total, 'image')} right.", legend_of(matrix)]
    for number, line in enumerate(lines):
        sheet.words(MARGIN, top - 19 - 12 * number, line, size=8.5, color=MUTED, up="top")


def legend_of(matrix: Counts) -> str:
    """What the colours of the cells of a confusion matrix (K, K) mean."""
    largest = _largest_share(matrix)
    if largest == 0:
        return "Colours are shares of a row: blue right, full at 100%; nothing is wrong."
    if largest == 1:
        return "Colours are shares of a row, full at 100%: blue right, orange wrong."
    orange = f"orange wrong, full at {percent(largest)}, the largest"
    return f"Colours are shares of a row: blue right, full at 100%; {orange}."


def _shares(matrix: Counts) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return shares


def _largest_share(matrix: Counts) -> float:
    """The largest share of wrong predictions in a row, which is drawn in full orange."""
    shares = _shares(matrix)
    np.fill_diagonal(shares, 0)
    return float(shares.max())


def _strengths(matrix: Counts) -> NDArray[np.float64]:
    """How full each cell's colour is, from 0 to 1."""
    shares = _shares(matrix)
    diagonal = shares.diagonal().copy()
    strengths = shares / (_largest_share(matrix) or 1.0)
    np.fill_diagonal(strengths, diagonal)
    return strengths


def _colors(matrix: Counts) -> NDArray[np.uint8]:
    """A colour a cell, (K, K, 3)."""
    strengths = _strengths(matrix)[..., None]
    colors = np.where(np.eye(len(matrix), dtype=bool)[..., None], RIGHT, WRONG)
    pixels = np.rint(255 + (colors - 255) * (0.92 * strengths)).astype(np.uint8)
    pixels[matrix == 0] = 246
    return pixels


def _cells(matrix: Counts, cell: int) -> NDArray[np.uint8]:
    """The cells as pixels, with a white line between them where they are wide enough."""
    big = _colors(matrix).repeat(cell, axis=0).repeat(cell, axis=1)
    if cell >= 8:
        big[cell - 1 :: cell] = 255
        big[:, cell - 1 :: cell] = 255
    return big


def _write_counts(sheet: Sheet, matrix: Counts, left: float, top: float, side: float) -> None:
    dark = _colors(matrix) @ LUMINANCE < WHITE_BELOW
    widest = f"{int(matrix.max()):,}"
    size = next((one for one in NUMBER_SIZES if width_of(widest, one) <= side - 3), NUMBER_SIZES[-1])
    for row, column in np.argwhere(matrix > 0):
        place = left + (column + 0.5) * side, top - (row + 0.5) * side
        color = "white" if dark[row, column] else INK
        words = f"{int(matrix[row, column]):,}"
        sheet.words(*place, words, size=size, color=color, across="center", up="center", level=4)


def _write_figures(sheet: Sheet, matrix: Counts, left: float, top: float, side: float) -> None:
    """Recall at the right of each row, precision below each column."""
    end = left + len(matrix) * side
    figures = class_figures(matrix)
    size = 7.5
    sheet.words(end + 8, top + 6, "recall", size=size, color=MUTED)
    wide = side >= width_of("100%", size) + 2
    bottom = top - len(matrix) * side - 11
    if wide:
        sheet.words(left - 6, bottom, "precision", size=size, color=MUTED, across="right", up="center")
    for number, one in enumerate(figures):
        sheet.words(end + 8, top - (number + 0.5) * side, _figure(one.recall), size=size, color=INK, up="center")
        if wide:
            place = left + (number + 0.5) * side
            sheet.words(place, bottom, _figure(one.precision), size=size, color=INK, across="center", up="center")


def _figure(value: float | None) -> str:
    return "\u2013" if value is None else f"{100 * value:.0f}%"
