"""Draws an explanation: the image, and the image in grey with the pixels that support the class in red."""

import numpy as np
from numpy.typing import NDArray

from service.drawing.canvas import DPI, INK, MUTED, drawing
from service.drawing.sheet import Sheet
from service.drawing.text import fit
from service.evaluation.draw_mistakes import fitted, percent, whole_pixels
from service.explanations.explain import Explained, Method

POINT = 72 / DPI
MARGIN = 22.0
SIDE = 480
"""Pixels of each of the two pictures, at most; images are enlarged by whole factors."""
GAP = 26.0
FOR, AGAINST = np.array([213, 94, 0]), np.array([0, 114, 178])
"""Vermilion and blue of the palette, told apart with every kind of colour blindness."""
GREY_PART = 0.55
"""Contrast of the grey image below the map: low, so that the colours are visible."""
KEPT_END = 30
NAMES = {
    Method.OCCLUSION: "Occlusion",
    Method.GRAD_CAM: "Grad-CAM",
    Method.INTEGRATED_GRADIENTS: "Integrated gradients",
}
SAID = {
    Method.OCCLUSION: "how much its logit falls when a part is covered",
    Method.GRAD_CAM: "where the last feature map supports it",
    Method.INTEGRATED_GRADIENTS: "what each pixel adds to its logit",
}


def render_explanation(explained: Explained, *, name: str, format: str = "png") -> bytes:  # noqa: A002
    """Draw an explanation. `name` is the experiment's."""
    title = f"{name}, {explained.predicted.name}"
    with drawing():
        return _draw(explained, title).save(format, title=title)


def _draw(explained: Explained, title: str) -> Sheet:
    predicted = explained.predicted
    image = predicted.picture()
    shown = [fitted(image, SIDE), fitted(overlay(image, explained.map), SIDE)]
    side = shown[0].shape[0] * POINT
    width = max(2 * MARGIN + 2 * side + GAP, 430)
    sheet = Sheet(width, MARGIN + 42 + side + 6 + 26 + MARGIN / 2)
    heading = fit(title, width - 2 * MARGIN, 12, bold=True, keep_end=KEPT_END)
    sheet.words(MARGIN, sheet.height - MARGIN, heading, size=12, color=INK, bold=True, up="top")
    target = predicted.class_names[explained.target]
    probability = float(predicted.judged.probabilities[explained.target])
    method = NAMES[explained.method]
    said = fit(f"{method} for '{target}', which has {percent(probability)}: {SAID[explained.method]}.", width - 44, 8.5)
    sheet.words(MARGIN, sheet.height - MARGIN - 19, said, size=8.5, color=MUTED, up="top")
    top = sheet.height - MARGIN - 42
    for number, pixels in enumerate(shown):
        left = MARGIN + number * (side + GAP)
        sheet.picture(whole_pixels(left), sheet.height - whole_pixels(sheet.height - top), pixels)
    base = top - side - 6
    best = predicted.predicted_class
    taken = f"predicted as {predicted.class_names[best]} {percent(float(predicted.judged.probabilities[best]))}"
    sheet.words(MARGIN, base, fit(taken, side, 8.5, keep_end=6), size=8.5, color=INK, up="top")
    _key(sheet, MARGIN + side + GAP, base, explained.map)
    return sheet


def overlay(image: NDArray[np.uint8], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The image (H, W, 3) in grey, coloured by a map (H, W): the largest absolute value is fully coloured."""
    grey = (255 * (1 - GREY_PART) + GREY_PART * image.mean(axis=2))[..., None].repeat(3, axis=2)
    largest = float(np.abs(values).max())
    strength = (np.abs(values) / largest if largest else np.zeros_like(values))[..., None] ** 0.8
    colours = np.where(values[..., None] > 0, FOR, AGAINST)
    mixed = grey * (1 - strength) + colours * strength
    pixels: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return pixels


def _key(sheet: Sheet, left: float, base: float, values: NDArray[np.float64]) -> None:
    lowest, highest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    for colour, words, extreme in ((FOR, f"for it, to {highest:.2g}", highest), (AGAINST, _against(lowest), lowest)):
        if extreme:
            sheet.dots([(left + 4, base - 4)], color="#" + "".join(f"{part:02x}" for part in colour), size=8)
            sheet.words(left + 12, base, words, size=8.5, color=INK, up="top")
            left += 90


def _against(lowest: float) -> str:
    return f"against it, to \u2212{-lowest:.2g}"
