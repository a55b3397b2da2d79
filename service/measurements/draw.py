"""Drawing of a learning-rate test: loss against rate, the suggested rate, and where training diverged."""

import numpy as np

from models.measurements import SweepResult
from service.drawing import axis, labels
from service.drawing.canvas import INK, MUTED, PALETTE, WARNING, check_format, drawing
from service.drawing.plot import Plot, Scale
from service.drawing.series import Floats
from service.drawing.sheet import Box, Sheet
from service.drawing.text import fit

WIDTH, HEIGHT = 547.2, 309.6  # points
FRAME = Box(49, 42, 525, 234)


def render_lr_test(
    result: SweepResult,
    *,
    title: str = "Learning-rate test",
    format: str = "png",  # noqa: A002
) -> bytes:
    """Draw what a learning-rate test found.

    An earlier version's result may have no smoothed losses.
    """
    check_format(format)
    with drawing():
        return draw_lr_test(result, title).save(format, title=title)


def draw_lr_test(result: SweepResult, title: str) -> Sheet:
    """Build the figure."""
    lr, loss, smoothed = _points(result)
    suggestion = result.get("suggestion") or {"lr": None, "why": ""}
    sheet = Sheet(WIDTH, HEIGHT)
    plot = Plot(sheet, FRAME)
    room = FRAME.right - FRAME.left
    heading = fit(title, room, 12, bold=True)
    sheet.words(FRAME.left, HEIGHT - 12.5, heading, size=12, color=INK, bold=True, up="top")
    why = fit(str(suggestion.get("why") or ""), room, 9)
    sheet.words(FRAME.left, HEIGHT - 32.5, why, size=9, color=MUTED, up="top")
    _draw_curve(plot, lr, loss, smoothed)
    if len(lr):
        _mark(plot, lr, smoothed, suggestion.get("lr"), result.get("diverged_at"))
    return sheet


def _points(result: SweepResult) -> tuple[Floats, Floats, Floats]:
    """Return rates, losses and smoothed losses sorted by rate; non-finite values become gaps."""
    points = sorted((p for p in result["points"] if p["lr"] and p["lr"] > 0), key=lambda point: float(point["lr"]))
    columns = [np.array([point.get(name) for point in points], dtype=np.float64) for name in ("lr", "loss", "smoothed")]
    for values in columns:
        values[~np.isfinite(values)] = np.nan
    lr, loss, smoothed = columns
    return lr, loss, smoothed if np.isfinite(smoothed).any() else loss


def _draw_curve(plot: Plot, lr: Floats, loss: Floats, smoothed: Floats) -> None:
    plot.head("Training loss")
    finite = smoothed[np.isfinite(smoothed)]
    if not len(finite):
        axis.rule_bottom(plot, [], [], "learning rate")
        plot.sheet.words(*plot.frame.middle, "no finite loss", size=9, color=MUTED, across="center", up="center")
        return
    room = 1.0 if lr[-1] > lr[0] else 3.0
    plot.x = Scale(lr[0] / room, lr[-1] * room, log=True)
    # What matters lies below the loss at the start; where it explodes the curve may leave the plot.
    low, start = float(finite.min()), float(np.median(finite[: max(1, len(finite) // 4)]))
    high = min(float(finite.max()), start + 1.2 * (start - low) + 0.3 * abs(start))
    span = (high - low) or max(0.2 * abs(high), 0.05)
    plot.y = Scale(low - 0.08 * span, high + 0.08 * span)
    if smoothed is not loss:
        plot.curve(lr, loss, color=PALETTE[0], width=0.9, alpha=0.4)
    plot.curve(lr, smoothed, color=PALETTE[0], width=2)
    axis.rule_linear_values(plot)
    powers = [10.0**power for power in range(-15, 6) if plot.x.low * 0.999 <= 10.0**power <= plot.x.high * 1.001]
    axis.rule_bottom(plot, powers, axis.one_notation(powers), "learning rate, log scale")


def _mark(plot: Plot, lr: Floats, loss: Floats, suggested: float | None, diverged_at: float | None) -> None:
    """Mark the suggested rate as a point on the curve, and the range beyond the divergence as a tint."""
    if diverged_at is not None and diverged_at < plot.x.high * 1.001:
        plot.span(diverged_at, plot.x.high, color=WARNING, alpha=0.07)
        plot.upright(diverged_at, color=WARNING, width=1.1, dash=(1, 2))
        place = plot.across(diverged_at)
        across = "left" if place < plot.frame.middle[0] else "right"
        words = f"diverged at {diverged_at:.2g}"
        plot.sheet.words(place, plot.frame.top + 3, words, size=8.5, color=WARNING, across=across)
    if suggested is None:
        return
    height = float(np.interp(np.log(suggested), np.log(lr), loss))
    plot.upright(suggested, color=PALETTE[1], width=1.2, dash=(4, 2))
    x, y = plot.across(suggested), plot.frame.middle[1]
    if np.isfinite(height):
        y = plot.up(height)
        plot.sheet.dots([(x, y)], color=PALETTE[1], size=8, edge=2)
    words = f"suggested: {suggested:.2g}"
    box = labels.place(plot, (x, y), labels.text_size(words, 10, bold=True), [], above=True)
    plot.sheet.words(
        *box.middle, words, size=10, color=PALETTE[1], bold=True, across="center", up="center", edge=3, level=7
    )
