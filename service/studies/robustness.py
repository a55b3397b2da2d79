"""Draws accuracy by strength of corruption: a panel for each corruption, a line for each row."""

from collections.abc import Sequence

import numpy as np

from models.studies.additions import CORRUPTION_WORDS, STRENGTHS, Robustness
from service.drawing import axis
from service.drawing.canvas import FAINT, INK, MUTED, PALETTE, check_format, drawing
from service.drawing.plot import Plot, Scale
from service.drawing.sheet import Box, Sheet
from service.drawing.text import clean, fit

PANEL, BETWEEN, LEFT, RIGHT, ABOVE, BELOW = 132.0, 14.0, 40.0, 14.0, 26.0, 40.0  # points, as all lengths here
HEIGHT = 150.0
LEGEND_LINE = 13.0


def render_robustness(rows: Sequence[Robustness], *, title: str, format: str = "png") -> bytes:  # noqa: A002
    """Draw rows that were measured. With none, a sheet that says so."""
    check_format(format)
    with drawing():
        return _draw([row for row in rows if row.clean is not None]).save(format, title=clean(title))


def _draw(rows: Sequence[Robustness]) -> Sheet:
    panels = len(CORRUPTION_WORDS)
    width = LEFT + RIGHT + panels * PANEL + (panels - 1) * BETWEEN
    sheet = Sheet(width, ABOVE + HEIGHT + BELOW + LEGEND_LINE * max(len(rows), 1))
    if not rows:
        words = "no row was scored on corrupted images"
        sheet.words(sheet.width / 2, sheet.height / 2, words, size=10, color=MUTED, across="center")
        return sheet
    values = [row.clean or 0.0 for row in rows] + [v for row in rows for found in row.accuracy.values() for v in found]
    room = max(max(values) - min(values), 0.04)
    scale = Scale(max(0.0, min(values) - 0.06 * room), min(1.02, max(values) + 0.06 * room))
    top = sheet.height - ABOVE
    for index, (name, words) in enumerate(CORRUPTION_WORDS.items()):
        left = LEFT + index * (PANEL + BETWEEN)
        box = Box(left, top - HEIGHT, left + PANEL, top)
        sheet.words(left, top + 8, words, size=8.5, color=INK, bold=True)
        _panel(sheet, box, rows, name, scale, first=index == 0)
    for index, row in enumerate(rows):
        y = top - HEIGHT - BELOW - LEGEND_LINE * (index + 0.5)
        sheet.line([(LEFT, y), (LEFT + 16, y)], color=_color(index), width=1.6, dash=_dash(index))
        label = row.row if row.title == row.row else f"{row.row}  {row.title}"
        sheet.words(LEFT + 20, y, fit(label, width - LEFT - 40, 8), size=8, color=INK, up="center")
    return sheet


def _panel(sheet: Sheet, box: Box, rows: Sequence[Robustness], name: str, scale: Scale, *, first: bool) -> None:
    plot = Plot(sheet, box)
    plot.x, plot.y = Scale(-0.25, len(STRENGTHS) + 0.25), scale
    ticks = axis.nice_ticks(scale)
    for tick in ticks[:: 2 if len(ticks) > 6 else 1]:
        y = plot.up(tick)
        sheet.line([(box.left, y), (box.right, y)], color=FAINT, width=0.7, level=0.5)
        if first:
            words = f"{round(100 * tick, 6):g}%"
            sheet.words(box.left - 4, y, words, size=7.5, color=INK, across="right", up="center")
    for strength in (0, *STRENGTHS):
        x = plot.across(strength)
        sheet.line([(x, box.bottom - 2.7), (x, box.bottom)], color=FAINT, width=0.8)
        sheet.words(x, box.bottom - 5, str(strength), size=7.5, color=INK, across="center", up="top")
    sheet.words(box.middle[0], box.bottom - 17, "strength", size=7.5, color=MUTED, across="center", up="top")
    strengths = np.arange(len(STRENGTHS) + 1, dtype=np.float64)
    for index, row in enumerate(rows):
        values = np.array([row.clean, *row.accuracy.get(name, ())], np.float64)
        plot.curve(strengths[: len(values)], values, color=_color(index), width=1.4, dash=_dash(index), level=3)


def _color(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def _dash(index: int) -> tuple[float, ...]:
    """The dash pattern of a row's line: rows beyond the palette's size repeat its colours with dashes."""
    return ((), (4.0, 2.0), (1.0, 2.0))[index // len(PALETTE) % 3]
