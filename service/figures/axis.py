"""Limits and ticks that fit what is shown."""

from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from service.figures.series import Floats


def set_limits(ax: Axes, series: Sequence[Floats], *, highest: bool) -> None:
    """The value axis of a plot: accuracies in per cent, losses on a log scale if a linear one would hide the curves.

    There is room for a label beyond the best value: above the highest accuracy, below the lowest loss.
    """
    values = np.concatenate(series)
    values = values[np.isfinite(values)]
    if highest:
        _limit_accuracy(ax, values)
    elif len(values) and values.max() > 20 and values.max() > 8 * np.median(values):
        _limit_log(ax, values[values > 0])  # a cross-entropy this high is no plain learning curve
    elif len(values):
        low, high = float(values.min()), float(values.max())
        span = high - low or max(0.2 * abs(high), 0.05)
        ax.set_ylim(max(0.0, low - 0.13 * span), high + 0.06 * span)
        ax.yaxis.set_major_locator(ticker.MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))


def _limit_accuracy(ax: Axes, values: Floats) -> None:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    span = max(high - low, 0.04)
    ax.set_ylim(max(0.0, low - 0.06 * span), high + 0.13 * span)
    ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{round(100 * value, 6):g}%"))
    ax.yaxis.set_major_locator(_UpToOne(nbins=7, steps=[1, 2, 2.5, 5, 10]))


def _limit_log(ax: Axes, positive: Floats) -> None:
    low, high = float(positive.min()), float(positive.max())
    ax.set_yscale("log")
    ax.set_ylim(low / (high / low) ** 0.13, high * (high / low) ** 0.06)
    subs = (1, 2, 3, 5) if high / low < 50 else (1, 3) if high / low < 5000 else (1,)
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=9))
    ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(ticker.NullLocator())


def set_x(ax: Axes, xs: Sequence[Floats], *, by_epoch: bool) -> None:
    """The axis along the bottom: whole epochs from 1, or time from 0."""
    first = min((float(x[0]) for x in xs if len(x)), default=1.0)
    last = max((float(x[-1]) for x in xs if len(x)), default=1.0)
    if not by_epoch:
        ax.xaxis.set_major_locator(ticker.MaxNLocator(nbins=7))
        ax.set_xlim(0, max(last * 1.02, 1e-3))
        return
    pad = max(0.02 * (last - first), 0.3 if last - first < 15 else 0.5)
    ax.set_xlim(first - pad, last + pad)
    nice = ticker.MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1).tick_values(first, last)
    ax.set_xticks(sorted({max(first, float(tick)) for tick in nice if first - 1 <= tick <= last}))
    ax.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


class _UpToOne(ticker.MaxNLocator):
    """No tick above 100%, though the axis goes a little further."""

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Ticks between the limits that an accuracy can have."""
        return [tick for tick in super().tick_values(vmin, vmax) if tick <= 1 + 1e-9]
