"""The wrong predictions of the highest confidence as a gallery: each image, its class, and the predicted class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.text import plural
from service.drawing.canvas import DPI, INK, MUTED, WARNING, drawing
from service.drawing.sheet import Sheet
from service.drawing.text import fit
from service.evaluation.images import enlarged
from service.evaluation.read import Mistake

POINT = 72 / DPI
MARGIN = 22.0
COLUMNS = 6
SIDE = 192
"""Pixels of a picture's longer side, at most; images are enlarged by whole factors."""
GAP, CAPTION = 14.0, 38.0
MAX_SHOWN = 60
KEPT_END = 28


def render_mistakes(
    mistakes: Sequence[Mistake],
    images: Sequence[NDArray[np.uint8]],
    names: tuple[str, ...],
    *,
    num_wrong: int,
    title: str,
    label: int | None = None,
    predicted: int | None = None,
    format: str = "png",  # noqa: A002
) -> bytes:
    """Draw images (H, W, 3) of mistakes, in the order given; `num_wrong` is how many there are in all.

    `label` and `predicted` are the classes that the mistakes were limited to.
    """
    summary = _summary(
        len(mistakes), num_wrong, *(None if number is None else names[number] for number in (label, predicted))
    )
    with drawing():
        return _draw(mistakes, images, names, summary, title).save(format, title=title)


def _summary(num_shown: int, num_wrong: int, label: str | None, predicted: str | None) -> str:
    """Which mistakes the gallery shows."""
    of = "" if label is None else f" of class '{label}'"
    taken = "" if predicted is None else f" predicted as '{predicted}'"
    if not num_wrong:
        return f"No image{of} is wrong{'ly' if taken else ''}{taken}."
    order = f"the {num_shown} of the highest confidence" if num_shown < num_wrong else "by falling confidence"
    return f"{plural(num_wrong, 'wrong image')}{of}{taken}, {order}."


def _draw(
    mistakes: Sequence[Mistake],
    images: Sequence[NDArray[np.uint8]],
    names: tuple[str, ...],
    summary: str,
    title: str,
) -> Sheet:
    side = SIDE * POINT
    columns = max(1, min(COLUMNS, len(mistakes)))
    rows = -(-len(mistakes) // columns)
    width = 2 * MARGIN + COLUMNS * side + (COLUMNS - 1) * GAP
    sheet = Sheet(width, MARGIN + 46 + rows * (side + CAPTION) + MARGIN / 2)
    top = sheet.height - MARGIN
    heading = fit(title, width - 2 * MARGIN, 12, bold=True, keep_end=KEPT_END)
    sheet.words(MARGIN, top, heading, size=12, color=INK, bold=True, up="top")
    legend = " Red: the predicted class; below it: the true one." if mistakes else ""
    summary = fit(summary + legend, width - 2 * MARGIN, 8.5, keep_end=len(legend))
    sheet.words(MARGIN, top - 19, summary, size=8.5, color=MUTED, up="top")
    for number, (mistake, image) in enumerate(zip(mistakes, images, strict=True)):
        row, column = divmod(number, columns)
        left = MARGIN + column * (side + GAP)
        _draw_one(sheet, mistake, image, names, left, top - 42 - row * (side + CAPTION))
    return sheet


def _draw_one(
    sheet: Sheet, mistake: Mistake, image: NDArray[np.uint8], names: tuple[str, ...], left: float, top: float
) -> None:
    pixels = fitted(image)
    height = pixels.shape[0] * POINT
    side = SIDE * POINT
    sheet.picture(whole_pixels(left), sheet.height - whole_pixels(sheet.height - top + (side - height) / 2), pixels)
    base = top - side - 3
    taken = f"{names[mistake.predicted]} {percent(mistake.probability)}"
    sheet.words(left, base, fit(taken, side, 8.5, bold=True, keep_end=6), size=8.5, color=WARNING, bold=True, up="top")
    own = f"is {names[mistake.label]} {percent(mistake.label_probability)}"
    sheet.words(left, base - 12, fit(own, side, 8, keep_end=6), size=8, color=INK, up="top")


def fitted(image: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """An image enlarged by a whole factor as far as it fits, or with every second, third, ... pixel if it is larger."""
    longest = max(image.shape[:2])
    if longest > side:
        step = -(-longest // side)
        return image[::step, ::step]
    return enlarged(image, side // longest)


def whole_pixels(length: float) -> float:
    """The length in points, rounded to pixels of the PNG."""
    return round(length / POINT) * POINT


def percent(probability: float) -> str:
    """Format a probability in per cent, never rounded up to 100% or down to 0%."""
    shown = f"{100 * probability:.0f}%"
    return ">99%" if shown == "100%" and probability < 1 else "<1%" if shown == "0%" else shown
