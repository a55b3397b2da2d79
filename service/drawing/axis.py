"""Axis limits, scales and ticks chosen from the data."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import ticker

from service.drawing.canvas import FAINT, INK, MUTED
from service.drawing.plot import EDGE, Plot, Scale
from service.drawing.series import Floats

SIZE = 8.5
STEPS = [1, 2, 2.5, 5, 10]


def set_values(plot: Plot, series: Sequence[Floats], *, highest: bool) -> None:
    """Choose the value axis of a plot: accuracies in per cent, losses on a log scale if they span a wide range.

    There is room for a label beyond the best value: above the highest accuracy, below the lowest loss.
    """
    values = np.concatenate(series)
    values = values[np.isfinite(values)]
    if not len(values):
        return
    if highest:
        _set_accuracies(plot, float(values.min()), float(values.max()))
    elif values.max() > 20 and values.max() > 8 * np.median(values):
        _set_log_losses(plot, values[values > 0])  # a cross-entropy this high is no plain learning curve
    else:
        low, high = float(values.min()), float(values.max())
        span = high - low or max(0.2 * abs(high), 0.05)
        plot.y = Scale(max(0.0, low - 0.13 * span), high + 0.06 * span)
        rule_linear_values(plot)


def _set_accuracies(plot: Plot, low: float, high: float) -> None:
    span = max(high - low, 0.04)
    plot.y = Scale(max(0.0, low - 0.06 * span), high + 0.13 * span)
    ticks = [tick for tick in nice_ticks(plot.y) if tick < 1.001]
    rule_values(plot, ticks, [f"{round(100 * tick, 6):g}%" for tick in ticks])


def _set_log_losses(plot: Plot, positive: Floats) -> None:
    low, high = float(positive.min()), float(positive.max())
    plot.y = Scale(low / (high / low) ** 0.13, high * (high / low) ** 0.06, log=True)
    subs = (1, 2, 3, 5) if high / low < 50 else (1, 3) if high / low < 5000 else (1,)
    ticks = _within(ticker.LogLocator(subs=subs, numticks=9).tick_values(plot.y.low, plot.y.high), plot.y)
    rule_values(plot, ticks, one_notation(ticks))


def set_bottom(plot: Plot, xs: Sequence[Floats], title: str, *, by_epoch: bool) -> None:
    """Choose the horizontal axis: epochs from 1, or time from 0."""
    first = min((float(x[0]) for x in xs if len(x)), default=None)
    last = max((float(x[-1]) for x in xs if len(x)), default=0.0)
    if first is None:
        rule_bottom(plot, [], [], title)
    elif by_epoch:
        pad = max(0.02 * (last - first), 0.3 if last - first < 15 else 0.5)
        plot.x = Scale(first - pad, last + pad)
        nice = ticker.MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1).tick_values(first, last)
        ticks = sorted({max(first, float(tick)) for tick in nice if first - 1 <= tick <= last})
        rule_bottom(plot, ticks, [f"{tick:,.0f}" for tick in ticks], title)
    else:
        plot.x = Scale(0, max(last * 1.02, 1e-3))
        ticks = nice_ticks(plot.x)
        rule_bottom(plot, ticks, [f"{tick:g}" for tick in ticks], title)


def nice_ticks(scale: Scale) -> list[float]:
    """Return round tick values between the limits, with at most eight intervals."""
    return _within(ticker.MaxNLocator(nbins=8, steps=STEPS).tick_values(scale.low, scale.high), scale)


def _within(ticks: Iterable[float], scale: Scale) -> list[float]:
    values = np.array(list(ticks), np.float64)
    places = scale.place(values)
    return [float(tick) for tick in values[(places >= -1e-9) & (places <= 1 + 1e-9)]]


def one_notation(ticks: Sequence[float]) -> list[str]:
    """Format ticks of a log axis in one notation: 0.01, 0.1, 1 where that is short, else 1e-6, 1e-3, 1e0."""
    if all(1e-4 <= abs(tick) < 1e5 for tick in ticks):
        return [f"{tick:.10f}".rstrip("0").rstrip(".") for tick in ticks]
    words = [f"{tick:.3e}".split("e") for tick in ticks]
    return [f"{number.rstrip('0').rstrip('.')}e{int(power)}" for number, power in words]


def rule_linear_values(plot: Plot) -> None:
    """Format ticks of a linear axis, all with the same number of decimals."""
    ticks = nice_ticks(plot.y)
    decimals = max((len(f"{tick:.6f}".rstrip("0").partition(".")[2]) for tick in ticks), default=0)
    rule_values(plot, ticks, [f"{tick:,.{decimals}f}" for tick in ticks])


def rule_values(plot: Plot, ticks: Sequence[float], words: Sequence[str]) -> None:
    """Draw horizontal grid lines at the ticks, with labels on the left."""
    left, right = plot.frame.left, plot.frame.right
    for tick, word in zip(ticks, words, strict=True):
        y = plot.up(tick)
        plot.sheet.line([(left, y), (right, y)], color=FAINT, width=0.7, level=0.5)
        plot.sheet.words(left - 4.2, y, word, size=SIZE, color=INK, across="right", up="center")


def rule_bottom(plot: Plot, ticks: Sequence[float], words: Sequence[str], title: str) -> None:
    """Draw tick marks below the plot with their labels, and the axis title."""
    bottom = plot.frame.bottom
    for tick, word in zip(ticks, words, strict=True):
        x = plot.across(tick)
        plot.sheet.line([(x, bottom - 2.7), (x, bottom)], color=EDGE, width=0.8)
        plot.sheet.words(x, bottom - 6.2, word, size=SIZE, color=INK, across="center", up="top")
    plot.sheet.words(plot.frame.middle[0], bottom - 22.5, title, size=9, color=MUTED, across="center", up="top")
