"""Draws a timeline: the image, and by epoch the probability of its class and of the most probable other one."""

import numpy as np

from service.drawing import axis
from service.drawing.canvas import INK, MUTED, PALETTE, drawing
from service.drawing.plot import Plot, Scale
from service.drawing.sheet import Box, Sheet
from service.drawing.text import fit
from service.evaluation.draw_mistakes import fitted, whole_pixels
from service.explanations.timeline import Timeline, spans_of

WIDTH, HEIGHT = 620.0, 300.0
MARGIN = 22.0
PICTURE = 86.0
"""Points of the image's side."""
FRAME = Box(MARGIN + PICTURE + 62, 70, WIDTH - MARGIN, HEIGHT - 74)
STRIP, EDGE = 9.0, 3.0
"""Height of the strip below the axis, and what it reaches beyond the first and the last epoch."""
KEPT_END = 30
TARGET, OTHER = PALETTE[0], "#A8A8A8"
RIGHT, WRONG = PALETTE[2], PALETTE[1]


def render_timeline(timeline: Timeline, *, name: str, format: str = "png") -> bytes:  # noqa: A002
    """Draw a timeline. `name` is the experiment's."""
    title = f"{name}, {timeline.predicted.name}"
    with drawing():
        return _draw(timeline, title).save(format, title=title)


def _draw(timeline: Timeline, title: str) -> Sheet:
    sheet = Sheet(WIDTH, HEIGHT)
    heading = fit(title, WIDTH - 2 * MARGIN, 12, bold=True, keep_end=KEPT_END)
    sheet.words(MARGIN, HEIGHT - MARGIN, heading, size=12, color=INK, bold=True, up="top")
    said = fit(describe(timeline), WIDTH - 2 * MARGIN, 8.5)
    sheet.words(MARGIN, HEIGHT - MARGIN - 19, said, size=8.5, color=MUTED, up="top")
    pixels = fitted(timeline.predicted.picture())
    top = whole_pixels(FRAME.top)
    sheet.picture(whole_pixels(MARGIN), top, pixels)
    target = timeline.predicted.class_names[timeline.target]
    sheet.words(MARGIN, top - PICTURE - 8, fit(target, PICTURE, 9), size=9, color=INK, up="top")
    epochs = np.asarray(timeline.epochs, np.float64)
    own = timeline.probabilities[:, timeline.target]
    others = np.delete(timeline.probabilities, timeline.target, axis=1)
    plot = Plot(sheet, FRAME)
    plot.y = Scale(0, 1.04)
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    axis.rule_values(plot, ticks, [f"{100 * tick:.0f}%" for tick in ticks])
    axis.set_bottom(plot, [epochs], "epoch", by_epoch=True)
    if others.shape[1]:
        plot.curve(epochs, others.max(axis=1), color=OTHER, width=1.2)
    plot.curve(epochs, own, color=TARGET, width=1.8)
    if len(epochs) <= 40:
        sheet.dots(plot.at(epochs, own), color=TARGET, size=4.5)
    _key(sheet, target, has_others=others.shape[1] > 0)
    _strip(plot, timeline)
    return sheet


def describe(timeline: Timeline) -> str:
    """A sentence on when the image was learned and forgotten."""
    target, epochs = timeline.predicted.class_names[timeline.target], timeline.epochs
    if timeline.learned_at is None:
        return f"None of the {len(epochs)} kept epochs predicts '{target}'."
    parts = [f"first predicted as '{target}' at epoch {timeline.learned_at}"]
    if forgotten := timeline.forgotten_at:
        shown = ", ".join(map(str, forgotten[:4])) + (" ..." if len(forgotten) > 4 else "")
        parts.append(f"forgotten at {shown}")
        if timeline.kept_from is not None:
            parts.append(f"predicted in every kept epoch from {timeline.kept_from} on")
    last = epochs[-1]
    seen = f"{len(epochs)} epochs of {last} are kept." if len(epochs) < last else f"All {last} epochs are kept."
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}. {seen}"


def _key(sheet: Sheet, target: str, *, has_others: bool) -> None:
    left, y = FRAME.left, FRAME.top + 12
    for color, words in ((TARGET, fit(target, 150, 8.5)), (OTHER, "the strongest other class")):
        if color == OTHER and not has_others:
            continue
        sheet.line([(left, y), (left + 14, y)], color=color, width=1.8)
        sheet.words(left + 19, y, words, size=8.5, color=INK, up="center")
        left += 40 + 5.6 * len(words)


def _strip(plot: Plot, timeline: Timeline) -> None:
    """Draw the strip below the axis: green where the epoch predicts the class, red where it does not."""
    epochs = timeline.epochs
    base = plot.frame.bottom - 56
    for first, last, is_right in spans_of([bool(one) for one in timeline.right]):
        start = epochs[first] if first == 0 else (epochs[first - 1] + epochs[first]) / 2
        end = epochs[last] if last == len(epochs) - 1 else (epochs[last] + epochs[last + 1]) / 2
        left, right = plot.across(start), plot.across(end)
        box = Box(left - EDGE * (first == 0), base, right + EDGE * (last == len(epochs) - 1), base + STRIP)
        plot.sheet.area(box, color=RIGHT if is_right else WRONG, alpha=0.85, level=1)
    words = (("predicted", RIGHT), ("another class", WRONG))
    for number, (text, color) in enumerate(words):
        y = base + STRIP / 2 + 7 - 14 * number
        plot.sheet.words(plot.frame.left - 10, y, text, size=8, color=color, across="right", up="center")
