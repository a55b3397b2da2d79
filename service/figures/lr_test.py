"""A learning rate range test: loss against rate, what is suggested, and where it diverged."""

from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.figures import axis, labels
from service.figures.canvas import DPI, INK, MUTED, PALETTE, check_format, drawing, head, printable, save
from service.figures.series import Floats

WIDTH, HEIGHT = 7.6, 4.3  # inches


def render_lr_test(
    result: dict[str, Any],
    *,
    title: str = "Learning rate test",
    format: str = "png",  # noqa: A002
) -> bytes:
    """Draw what a range test found.

    {"points": [{"lr", "loss", "smoothed"?}], "suggestion": {"lr", "why"}, "diverged_at"}, where both rates may be None.
    """
    check_format(format)
    with drawing():
        return save(draw_lr_test(result, title), format, title=title)


def draw_lr_test(result: dict[str, Any], title: str) -> Figure:
    """The figure itself; stands inside `drawing`."""
    lr, loss, smoothed = _points(result)
    suggestion = result.get("suggestion") or {}
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
    ax = figure.add_axes((0.09, 0.135, 0.87, 0.62))
    heading = printable(title, 62)
    figure.text(0.09, 0.96, heading, fontsize=12, fontweight="bold", color=INK, va="top", parse_math=False)
    why = printable(str(suggestion.get("why") or ""), 105)
    figure.text(0.09, 0.895, why, fontsize=9, color=MUTED, va="top", parse_math=False)
    _draw_curve(ax, lr, loss, smoothed)
    if len(lr):
        _mark(ax, lr, smoothed, suggestion.get("lr"), result.get("diverged_at"))
    return figure


def _points(result: dict[str, Any]) -> tuple[Floats, Floats, Floats]:
    """Rates, losses and smoothed losses in the order of the rates; what is not finite becomes a gap."""
    points = sorted((p for p in result["points"] if p["lr"] and p["lr"] > 0), key=lambda point: float(point["lr"]))
    columns = [np.array([point.get(name) for point in points], dtype=np.float64) for name in ("lr", "loss", "smoothed")]
    for values in columns:
        values[~np.isfinite(values)] = np.nan
    lr, loss, smoothed = columns
    return lr, loss, smoothed if np.isfinite(smoothed).any() else loss


def _draw_curve(ax: Axes, lr: Floats, loss: Floats, smoothed: Floats) -> None:
    ax.set_xscale("log")
    head(ax, "Training loss")
    finite = smoothed[np.isfinite(smoothed)]
    if not len(finite):
        axis.rule_values(ax, [], [])
        axis.rule_bottom(ax, [], [], "learning rate")
        ax.text(0.5, 0.5, "no finite loss", transform=ax.transAxes, ha="center", va="center", color=MUTED)
        return
    if smoothed is not loss:
        ax.plot(lr, loss, color=PALETTE[0], lw=0.9, alpha=0.4)
    ax.plot(lr, smoothed, color=PALETTE[0], lw=2)
    room = 1.0 if lr[-1] > lr[0] else 3.0
    ax.set_xlim(lr[0] / room, lr[-1] * room)
    # What matters lies below the loss at the start; where it explodes the curve may leave the plot.
    low, start = float(finite.min()), float(np.median(finite[: max(1, len(finite) // 4)]))
    high = min(float(finite.max()), start + 1.2 * (start - low) + 0.3 * abs(start))
    span = (high - low) or max(0.2 * abs(high), 0.05)
    ax.set_ylim(low - 0.08 * span, high + 0.08 * span)
    axis.rule_linear_values(ax)
    left, right = ax.get_xlim()
    powers = [10.0**power for power in range(-15, 6) if left * 0.999 <= 10.0**power <= right * 1.001]
    axis.rule_bottom(ax, powers, [axis.plain(power) for power in powers], "learning rate, log scale")


def _mark(ax: Axes, lr: Floats, loss: Floats, suggested: float | None, diverged_at: float | None) -> None:
    """The suggestion as a point on the curve with its rate, and all that lies beyond the divergence as a tint."""
    if diverged_at is not None and diverged_at < ax.get_xlim()[1] * 1.001:
        ax.axvspan(diverged_at, ax.get_xlim()[1], color="#B00020", alpha=0.07, lw=0)
        ax.axvline(diverged_at, color="#B00020", lw=1.1, ls=(0, (1, 2)))
        near_left = _position(ax, diverged_at) < 0.5
        ax.annotate(
            f"diverged at {diverged_at:.2g}",
            (diverged_at, 1.015),
            xycoords=("data", "axes fraction"),
            ha="left" if near_left else "right",
            fontsize=8.5,
            color="#B00020",
        )
    if suggested is None:
        return
    height = float(np.interp(np.log(suggested), np.log(lr), loss))
    ax.axvline(suggested, color=PALETTE[1], lw=1.2, ls=(0, (4, 2)))
    if not np.isfinite(height):
        height = float(np.mean(ax.get_ylim()))
    else:
        ax.plot([suggested], [height], "o", ms=8, mfc="white", mec=PALETTE[1], mew=2, zorder=5)
    words = f"suggested: {suggested:.2g}"
    box = labels.place(ax, (suggested, height), labels.text_size(words, 10.5, DPI), [], above=True)
    ax.annotate(
        words,
        labels.in_figure(ax, (box.left + box.right) / 2, (box.bottom + box.top) / 2),
        xycoords="figure fraction",
        ha="center",
        va="center",
        fontsize=10,
        fontweight="bold",
        color=PALETTE[1],
        path_effects=[patheffects.withStroke(linewidth=3, foreground="white")],
    )


def _position(ax: Axes, lr: float) -> float:
    """Where a rate stands between the left (0) and the right edge (1)."""
    low, high = np.log(ax.get_xlim())
    return float((np.log(lr) - low) / (high - low))
