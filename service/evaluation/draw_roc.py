"""Draws ROC curves: the mean of all classes, the classes with the smallest areas in colour, the others in grey."""

import numpy as np

from models.evaluation.roc import RocCurve, thinned
from models.text import plural
from service.drawing import axis
from service.drawing.canvas import INK, MUTED, PALETTE, drawing
from service.drawing.plot import EDGE, Plot, Scale
from service.drawing.sheet import Box, Sheet
from service.drawing.text import fit

MARGIN = 22.0
SIDE = 300.0
KEY_WIDTH = 190.0
WORST = 3
"""The number of classes that are drawn in a colour of their own."""
OTHERS = "#C4C4C4"
KEPT_END = 28


def render_roc(
    curves: list[RocCurve | None],
    macro: RocCurve | None,
    names: tuple[str, ...],
    *,
    title: str,
    format: str = "png",  # noqa: A002
) -> bytes:
    """Draw each class against all others. Classes without a curve are listed."""
    with drawing():
        return _draw(curves, macro, names, title).save(format, title=title)


def _draw(curves: list[RocCurve | None], macro: RocCurve | None, names: tuple[str, ...], title: str) -> Sheet:
    left, bottom = MARGIN + 40, MARGIN + 36
    sheet = Sheet(left + SIDE + 16 + KEY_WIDTH + MARGIN, bottom + SIDE + 66)
    heading = fit(title, sheet.width - 2 * MARGIN, 12, bold=True, keep_end=KEPT_END)
    sheet.words(MARGIN, sheet.height - MARGIN, heading, size=12, color=INK, bold=True, up="top")
    plot = Plot(sheet, Box(left, bottom, left + SIDE, bottom + SIDE))
    plot.x = plot.y = Scale(0, 1)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    words = [f"{100 * tick:.0f}%" for tick in ticks]
    axis.rule_values(plot, ticks, words)
    axis.rule_bottom(plot, ticks, words, "false positive rate: other images predicted as the class")
    sheet.words(left, bottom + SIDE + 9, "true positive rate: images of the class that are found", size=9, color=MUTED)
    plot.curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), color=EDGE, width=0.8, dash=(4, 4), level=1)
    known = sorted(
        ((curve.area, number, curve) for number, curve in enumerate(curves) if curve is not None),
        key=lambda item: item[:2],
    )
    key = _Key(sheet, left + SIDE + 16, bottom + SIDE)
    for _, _, curve in known[WORST:]:
        plot.curve(*thinned(curve), color=OTHERS, width=0.8, level=2)
    if macro is not None:
        plot.curve(*thinned(macro), color=INK, width=2.0, level=5)
        key.add(INK, 2.0, "mean of all classes", macro.area)
    for place, (area, number, curve) in enumerate(known[:WORST]):
        plot.curve(*thinned(curve), color=PALETTE[place], width=1.5, level=4)
        key.add(PALETTE[place], 1.5, names[number], area)
    if rest := known[WORST:]:
        key.add(OTHERS, 1.0, plural(len(rest), "other class", "other classes"), rest[0][0], rest[-1][0])
    if missing := len(curves) - len(known):
        key.say(f"{plural(missing, 'class', 'classes')} with none or all of the images")
    return sheet


class _Key:
    """The legend: each line's name with the area below it, from the top down."""

    def __init__(self, sheet: Sheet, left: float, top: float) -> None:
        self.sheet, self.left, self.y = sheet, left, top - 6
        self.right = left + KEY_WIDTH
        sheet.words(self.right, self.y + 15, "area", size=8.5, color=MUTED, across="right", up="center")

    def add(self, color: str, width: float, name: str, low: float, high: float | None = None) -> None:
        """Add an entry."""
        self.sheet.line([(self.left, self.y), (self.left + 16, self.y)], color=color, width=width)
        figure = f"{low:.3f}" if high is None or f"{high:.3f}" == f"{low:.3f}" else f"{low:.3f} \u2013 {high:.3f}"
        room = KEY_WIDTH - 22 - 6 - 5.0 * len(figure)
        self.sheet.words(self.left + 22, self.y, fit(name, room, 9), size=9, color=INK, up="center")
        self.sheet.words(self.right, self.y, figure, size=9, color=INK, across="right", up="center")
        self.y -= 15

    def say(self, text: str) -> None:
        """Write a remark below the entries."""
        self.sheet.words(self.left + 22, self.y, text, size=8.5, color=MUTED, up="center")
        self.y -= 15
