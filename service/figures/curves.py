"""Loss on the left, accuracy on the right: one experiment in full, or several laid over each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from models.errors import InvalidRequest
from service.figures import axis, findings, labels
from service.figures.canvas import (
    DPI,
    INK,
    MUTED,
    PALETTE,
    TRAIN_COLOR,
    VALIDATION_COLOR,
    check_format,
    drawing,
    head,
    printable,
    save,
)
from service.figures.series import CurveData, Curves, Floats, best_index, curves_of, lone_points, time_unit

WIDTH, PANEL_HEIGHT = 10.4, 2.9  # inches
LEFT, RIGHT, BETWEEN = 0.62, 0.92, 1.42
PANEL_WIDTH = (WIDTH - LEFT - RIGHT - BETWEEN) / 2
HEADER, AXIS_LABEL, LEGEND_ROW = 1.06, 0.62, 0.235
MAX_RUNS = 12
X_AXES = ("epoch", "seconds")

Dash = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the two plots: what it shows and how its values read."""

    title: str
    train: str
    validation: str
    highest: bool
    best_word: str

    @property
    def names(self) -> tuple[str, str]:
        """Both of its series."""
        return self.train, self.validation

    def text(self, value: float) -> str:
        """A value as it is written beside a curve."""
        if self.highest:
            return f"{100 * value:.1f}%"
        return f"{value:.3f}" if value < 100 else f"{value:.3g}"


LOSS = Panel("Loss", "train_loss", "val_loss", False, "lowest")
ACCURACY = Panel("Accuracy", "train_accuracy", "val_accuracy", True, "best")


@dataclass(frozen=True, slots=True)
class Run:
    """An experiment made ready to draw."""

    data: CurveData
    curves: Curves
    x: Floats
    train_color: str
    color: str


def render_curves(
    runs: Sequence[CurveData],
    *,
    x: str = "epoch",
    format: str = "png",  # noqa: A002
) -> bytes:
    """Draw the curves of one experiment, or of the first one and those it is compared with.

    `x` is "epoch" or "seconds" (time of training since its start). Gaps in a history stay gaps.
    """
    check_format(format)
    if x not in X_AXES:
        raise InvalidRequest(f"x is '{x[:20]}'; curves are drawn over epoch or seconds", fix="use x=epoch or x=seconds")
    if not 1 <= len(runs) <= MAX_RUNS:
        raise InvalidRequest(
            f"{len(runs)} experiments were asked for; one figure holds 1 to {MAX_RUNS}", fix="compare fewer of them"
        )
    with drawing():
        return save(draw_curves(runs, x), format, title=_title(runs))


def draw_curves(runs: Sequence[CurveData], x: str) -> Figure:
    """The figure itself; stands inside `drawing`."""
    prepared, x_label = _prepare(runs, x)
    figure, axes = _frame(prepared)
    for ax, panel in zip(axes, (LOSS, ACCURACY), strict=True):
        _draw_panel(ax, panel, prepared, x, x_label)
    return figure


def _prepare(runs: Sequence[CurveData], x: str) -> tuple[list[Run], str]:
    curves = [curves_of(run.history) for run in runs]
    unit, label = 1.0, "epoch"
    if x == "seconds":
        unit, name = time_unit(max((float(c.seconds[-1]) for c in curves if len(c.seconds)), default=0.0))
        label = f"{name} of training"
    prepared = []
    for index, (run, c) in enumerate(zip(runs, curves, strict=True)):
        color = PALETTE[index % len(PALETTE)]
        alone = len(runs) == 1
        prepared.append(
            Run(
                data=run,
                curves=c,
                x=c.seconds / unit if x == "seconds" else c.epochs,
                train_color=TRAIN_COLOR if alone else color,
                color=VALIDATION_COLOR if alone else color,
            )
        )
    return prepared, label


def _title(runs: Sequence[CurveData]) -> str:
    name = f"#{runs[0].id}  {runs[0].name}" if runs[0].name else f"Experiment #{runs[0].id}"
    return printable(name, 80)


def _frame(runs: list[Run]) -> tuple[Figure, list[Axes]]:
    """The figure with its heading, its legend if there are several runs, and two empty axes."""
    legend = LEGEND_ROW * (2 + (len(runs) - 1) // 2) + 0.1 if len(runs) > 1 else 0.0
    height = HEADER + PANEL_HEIGHT + AXIS_LABEL + legend
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    bottom = (AXIS_LABEL + legend) / height
    axes = [
        figure.add_axes((left / WIDTH, bottom, PANEL_WIDTH / WIDTH, PANEL_HEIGHT / height))
        for left in (LEFT, LEFT + PANEL_WIDTH + BETWEEN)
    ]

    def write(down: float, text: str, **style: Any) -> None:
        figure.text(LEFT / WIDTH, 1 - down / height, text, va="top", parse_math=False, **style)

    write(0.18, _title([run.data for run in runs]), fontsize=12, fontweight="bold", color=INK)
    if len(runs) == 1:
        summary = printable(str((runs[0].data.verdict or {}).get("summary") or ""), 165)
        write(0.45, summary, fontsize=9 if len(summary) <= 146 else 8, color=MUTED)
    else:
        others = f"compared with {len(runs) - 1} other{'s' if len(runs) > 2 else ''}"
        write(0.45, f"{others}; validation solid, training dashed", fontsize=9, color=MUTED)
        _legend(figure, runs, height, legend)
    return figure, axes


def _legend(figure: Figure, runs: list[Run], height: float, depth: float) -> None:
    """A small table in two columns, one entry a run: its colour, its name, its two best values."""
    per_column = (len(runs) + 1) // 2
    for index, run in enumerate(runs):
        left = LEFT if index < per_column else LEFT + PANEL_WIDTH + BETWEEN
        right = left + PANEL_WIDTH + 0.7
        y = (depth - 0.06 - LEGEND_ROW * (1 + index % per_column)) / height
        if index % per_column == 0:
            for place, words in ((right - 1.02, "lowest loss"), (right, "best accuracy")):
                head = y + LEGEND_ROW / height
                figure.text(place / WIDTH, head, words, va="center", ha="right", fontsize=7.5, color=MUTED)
        dash = _validation_dash(index)
        figure.add_artist(
            Line2D(
                [left / WIDTH, (left + 0.25) / WIDTH], [y, y], color=run.color, lw=2.4, ls=dash, solid_capstyle="butt"
            )
        )
        label = printable(f"#{run.data.id}  {run.data.name}", 34)
        figure.text((left + 0.34) / WIDTH, y, label, va="center", fontsize=8.5, color=INK, parse_math=False)
        for place, panel in ((right - 1.02, LOSS), (right, ACCURACY)):
            words = _best_text(run, panel)
            figure.text(place / WIDTH, y, words, va="center", ha="right", fontsize=8, color=MUTED)


def _best_text(run: Run, panel: Panel) -> str:
    values = run.curves.series(panel.validation)
    best = best_index(values, highest=panel.highest)
    if best is None:
        return "none"
    return f"{panel.text(float(values[best]))} @ {run.curves.epochs[best]:.0f}"


def _validation_dash(index: int) -> Dash:
    """Runs past the palette's end take its colours again, dash-dotted."""
    return "-" if index < len(PALETTE) else (0, (6, 1.5, 1.5, 1.5))


def _draw_panel(ax: Axes, panel: Panel, runs: list[Run], x: str, x_label: str) -> None:
    alone = len(runs) == 1
    for index, run in enumerate(runs):
        _draw_line(ax, run, panel.train, run.train_color, train=True, alone=alone, dash="-" if alone else (0, (3, 2)))
        _draw_line(ax, run, panel.validation, run.color, train=False, alone=alone, dash=_validation_dash(index))
    axis.set_values(ax, [run.curves.series(name) for run in runs for name in panel.names], highest=panel.highest)
    axis.set_bottom(ax, [run.x for run in runs], x_label, by_epoch=x == "epoch")
    scale = ", log scale" if ax.get_yscale() == "log" else ""
    head(ax, f"{panel.title}{scale}")
    if not any(np.isfinite(run.curves.series(name)).any() for run in runs for name in panel.names):
        _say_empty(ax, any(len(run.x) for run in runs))
    if alone:
        findings.draw(ax, panel.title, runs[0].data.verdict, runs[0].curves.epochs, runs[0].x)
        _mark_gaps(ax, panel, runs[0])
    taken = _label_ends(ax, panel, runs)
    for run in runs:
        _mark_best(ax, panel, run, taken, labelled=alone)


def _draw_line(ax: Axes, run: Run, name: str, color: str, *, train: bool, alone: bool, dash: Dash) -> None:
    values = run.curves.series(name)
    width = {(True, True): 1.5, (True, False): 2.0, (False, True): 1.1, (False, False): 1.6}[alone, train]
    if len(values) > 300:
        width *= 0.6
    alpha = 1.0 if alone or not train else 0.55
    ax.plot(run.x, values, color=color, lw=width, ls=dash, alpha=alpha, zorder=3 if train else 4)
    lone = lone_points(values)
    if lone.any():
        ax.plot(run.x[lone], values[lone], color=color, ls="none", marker="o", ms=4.5, alpha=alpha, zorder=4)


def _mark_gaps(ax: Axes, panel: Panel, run: Run) -> None:
    """A cross on the axis where values stop being finite: a curve that just ends could be mistaken for a short run."""
    missing = np.isnan(run.curves.series(panel.train)) | np.isnan(run.curves.series(panel.validation))
    starts = missing & ~np.concatenate(([False], missing[:-1]))
    if starts.any():
        style: Any = {
            "color": "#B00020",
            "marker": "x",
            "ms": 5,
            "mew": 1.4,
            "ls": "none",
            "clip_on": False,
            "gid": "guide",
        }
        ax.plot(run.x[starts], np.zeros(starts.sum()), transform=ax.get_xaxis_transform(), zorder=6, **style)
        ax.annotate(
            "\u00d7 not finite from here",
            (1, 1),
            (0, 20),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color="#B00020",
        )


def _say_empty(ax: Axes, ended: bool) -> None:
    text = "no finite value in any epoch" if ended else "no epoch has ended yet"
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)


def _label_ends(ax: Axes, panel: Panel, runs: list[Run]) -> list[labels.Box]:
    """Name each curve at its end: train and validation of one run, the numbers of several. Returns the room taken."""
    ends: list[tuple[float, float, str, str]] = []  # x and y in pixels, words, colour
    for run in runs:
        names = [(panel.train, "train", run.train_color), (panel.validation, "validation", run.color)]
        if len(runs) > 1:
            names = [(panel.validation, f"#{run.data.id}", run.color)]
        for name, words, color in names:
            values = run.curves.series(name)
            finite = np.flatnonzero(np.isfinite(values))
            if len(finite):
                end = ax.transData.transform((run.x[finite[-1]], values[finite[-1]]))
                ends.append((float(end[0]), float(end[1]), words, color))
    size = 9.0 if len(runs) == 1 else 8.0
    weight = "normal" if len(runs) == 1 else "bold"
    frame, covered = ax.get_window_extent(), []
    ends.sort()
    last = max((float(ax.transData.transform((run.x[-1], 1))[0]) for run in runs if len(run.x)), default=0.0)
    while ends:  # those that end at about the same place share a column; the longest have theirs beside the plot
        column = [end for end in ends if end[0] < ends[0][0] + 30]
        ends = ends[len(column) :]
        left = frame.x1 + 5 if column[-1][0] >= last - 1 else column[-1][0] + 13
        heights = labels.spread([end[1] for end in column], 1.2 * size * DPI / 72, frame.y0 + 9, frame.y1 - 4)
        for (_, _, words, color), height in zip(column, heights, strict=True):
            covered.append(_write(ax, words, left, height, "left", size, color, weight=weight))
    return covered


def _write(
    ax: Axes, words: str, x: float, y: float, align: str, size: float, color: str, *, weight: str = "normal"
) -> labels.Box:
    """Write over the curves at a place in pixels, with a white edge that keeps it legible; returns what it covers."""
    ax.annotate(
        words,
        labels.in_figure(ax, x, y),
        xycoords="figure fraction",
        ha=align,
        va="center",
        color=color,
        fontsize=size,
        fontweight=weight,
        annotation_clip=False,
        zorder=7,
        path_effects=[patheffects.withStroke(linewidth=2.5, foreground="white")],
    )
    width, height = labels.text_size(words, size, DPI)
    left = x if align == "left" else x - width / 2
    return labels.Box(left, y - height / 2, left + width, y + height / 2)


def _mark_best(ax: Axes, panel: Panel, run: Run, taken: list[labels.Box], *, labelled: bool) -> None:
    values = run.curves.series(panel.validation)
    best = best_index(values, highest=panel.highest)
    if best is None:
        return
    x, y = float(run.x[best]), float(values[best])
    size = 7 if labelled else 6
    ax.plot([x], [y], marker="o", ms=size, mfc="white", mec=run.color, mew=1.8, ls="none", zorder=6, clip_on=False)
    if labelled:
        words = f"{panel.best_word} {panel.text(y)}, epoch {run.curves.epochs[best]:.0f}"
        box = labels.place(ax, (x, y), labels.text_size(words, 8.5, DPI), taken, above=panel.highest)
        _write(ax, words, (box.left + box.right) / 2, (box.bottom + box.top) / 2, "center", 8.5, INK)
