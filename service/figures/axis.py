"""Limits and ticks that fit what is shown.

Ticks are drawn here, as a few lines and words: matplotlib's own are objects of five artists each, and making those took
half of a figure's time.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from service.figures.canvas import FAINT, INK, MUTED
from service.figures.series import Floats

SIZE = 8.5
STEPS = [1, 2, 2.5, 5, 10]


def set_values(ax: Axes, series: Sequence[Floats], *, highest: bool) -> None:
    """The value axis of a plot: accuracies in per cent, losses on a log scale if a linear one would hide the curves.

    There is room for a label beyond the best value: above the highest accuracy, below the lowest loss.
    """
    values = np.concatenate(series)
    values = values[np.isfinite(values)]
    if not len(values):
        rule_values(ax, [], [])
    elif highest:
        _set_accuracies(ax, float(values.min()), float(values.max()))
    elif values.max() > 20 and values.max() > 8 * np.median(values):
        _set_log_losses(ax, values[values > 0])  # a cross-entropy this high is no plain learning curve
    else:
        low, high = float(values.min()), float(values.max())
        span = high - low or max(0.2 * abs(high), 0.05)
        ax.set_ylim(max(0.0, low - 0.13 * span), high + 0.06 * span)
        rule_linear_values(ax)


def _set_accuracies(ax: Axes, low: float, high: float) -> None:
    span = max(high - low, 0.04)
    ax.set_ylim(max(0.0, low - 0.06 * span), high + 0.13 * span)
    ticks = [tick for tick in nice_ticks(*ax.get_ylim()) if tick < 1.001]
    rule_values(ax, ticks, [f"{round(100 * tick, 6):g}%" for tick in ticks])


def _set_log_losses(ax: Axes, positive: Floats) -> None:
    low, high = float(positive.min()), float(positive.max())
    ax.set_yscale("log")
    ax.set_ylim(low / (high / low) ** 0.13, high * (high / low) ** 0.06)
    subs = (1, 2, 3, 5) if high / low < 50 else (1, 3) if high / low < 5000 else (1,)
    ticks = _within(ticker.LogLocator(subs=subs, numticks=9).tick_values(*ax.get_ylim()), ax.get_ylim())
    rule_values(ax, ticks, [plain(tick) for tick in ticks])


def set_bottom(ax: Axes, xs: Sequence[Floats], title: str, *, by_epoch: bool) -> None:
    """The axis along the bottom: whole epochs from 1, or time from 0."""
    first = min((float(x[0]) for x in xs if len(x)), default=None)
    last = max((float(x[-1]) for x in xs if len(x)), default=0.0)
    if first is None:
        rule_bottom(ax, [], [], title)
    elif by_epoch:
        pad = max(0.02 * (last - first), 0.3 if last - first < 15 else 0.5)
        ax.set_xlim(first - pad, last + pad)
        nice = ticker.MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1).tick_values(first, last)
        ticks = sorted({max(first, float(tick)) for tick in nice if first - 1 <= tick <= last})
        rule_bottom(ax, ticks, [f"{tick:,.0f}" for tick in ticks], title)
    else:
        ax.set_xlim(0, max(last * 1.02, 1e-3))
        ticks = nice_ticks(*ax.get_xlim())
        rule_bottom(ax, ticks, [f"{tick:g}" for tick in ticks], title)


def nice_ticks(low: float, high: float) -> list[float]:
    """Round values between the limits, eight intervals at most."""
    return _within(ticker.MaxNLocator(nbins=8, steps=STEPS).tick_values(low, high), (low, high))


def _within(ticks: Iterable[float], limits: tuple[float, float]) -> list[float]:
    room = 1e-9 * (limits[1] - limits[0])
    return [float(tick) for tick in ticks if limits[0] - room <= tick <= limits[1] + room]


def plain(value: float) -> str:
    """A power of ten as people write it: 0.01, 1e-6."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")


def rule_linear_values(ax: Axes) -> None:
    """Round values at the left of a linear plot, all with as many decimals."""
    ticks = nice_ticks(*ax.get_ylim())
    decimals = max((len(f"{tick:.6f}".rstrip("0").partition(".")[2]) for tick in ticks), default=0)
    rule_values(ax, ticks, [f"{tick:,.{decimals}f}" for tick in ticks])


def rule_values(ax: Axes, ticks: Sequence[float], words: Sequence[str]) -> None:
    """Lines across the plot at the ticks, and their words at its left."""
    ax.yaxis.set_visible(False)
    across = ax.get_yaxis_transform()
    ax.hlines(ticks, 0, 1, transform=across, color=FAINT, lw=0.7, zorder=0.5)
    for tick, word in zip(ticks, words, strict=True):
        ax.text(-0.015, tick, word, transform=across, ha="right", va="center", fontsize=SIZE, color=INK)


def rule_bottom(ax: Axes, ticks: Sequence[float], words: Sequence[str], title: str) -> None:
    """Marks below the plot at the ticks, their words, and what they count."""
    ax.xaxis.set_visible(False)
    down = ax.get_xaxis_transform()
    ax.vlines(ticks, -0.013, 0, transform=down, color="#9A9A9A", lw=0.8, clip_on=False)
    for tick, word in zip(ticks, words, strict=True):
        ax.text(tick, -0.03, word, transform=down, ha="center", va="top", fontsize=SIZE, color=INK)
    ax.text(0.5, -0.11, title, transform=ax.transAxes, ha="center", va="top", fontsize=9, color=MUTED)
