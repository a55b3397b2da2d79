"""Drawing of loss (left) and accuracy (right): one experiment in detail, or several overlaid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import InvalidRequest
from service.curves import marks as findings
from service.drawing import axis, labels
from service.drawing.canvas import (
    INK,
    MUTED,
    PALETTE,
    TRAIN_COLOR,
    VALIDATION_COLOR,
    WARNING,
    check_format,
    drawing,
)
from service.drawing.plot import HEAD_RISE, Plot
from service.drawing.series import CurveData, Curves, Floats, best_index, curves_of, lone_points, time_unit
from service.drawing.sheet import CROSS, Box, Sheet
from service.drawing.text import clean, fit, width_of

WIDTH, PANEL_HEIGHT = 748.8, 208.8  # points, as all lengths here
LEFT, RIGHT, BETWEEN = 44.6, 66.2, 102.2
PANEL_WIDTH = (WIDTH - LEFT - RIGHT - BETWEEN) / 2
TITLE_WIDTH = WIDTH - 2 * LEFT
HEADER, AXIS_LABEL, LEGEND_ROW = 76.3, 44.6, 16.9
MAX_RUNS = 12
X_AXES = ("epoch", "seconds")

Dash = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the two plots: its series and the format of its values."""

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
        """Format a value for a label."""
        if self.highest:
            return f"{100 * value:.1f}%"
        plain = value == 0 or 0.001 <= value < 100
        return f"{value:.3f}" if plain else f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


LOSS = Panel("Loss", "train_loss", "val_loss", False, "lowest")
ACCURACY = Panel("Accuracy", "train_accuracy", "val_accuracy", True, "best")


@dataclass(frozen=True, slots=True)
class Run:
    """An experiment's curves and labels, ready to draw."""

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
        return draw_curves(runs, x).save(format, title=_title(runs))


def draw_curves(runs: Sequence[CurveData], x: str) -> Sheet:
    """Build the figure."""
    prepared, x_label = _prepare(runs, x)
    sheet, plots = _frame(prepared)
    for plot, panel in zip(plots, (LOSS, ACCURACY), strict=True):
        _draw_panel(plot, panel, prepared, x, x_label)
    return sheet


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
    return clean(name)


def _frame(runs: list[Run]) -> tuple[Sheet, list[Plot]]:
    """The sheet with its heading, its legend if there are several runs, and two empty plots."""
    legend = LEGEND_ROW * (2 + (len(runs) - 1) // 2) + 7 if len(runs) > 1 else 0.0
    sheet = Sheet(WIDTH, HEADER + PANEL_HEIGHT + AXIS_LABEL + legend)
    bottom = AXIS_LABEL + legend
    plots = [
        Plot(sheet, Box(left, bottom, left + PANEL_WIDTH, bottom + PANEL_HEIGHT))
        for left in (LEFT, LEFT + PANEL_WIDTH + BETWEEN)
    ]
    title = _title([run.data for run in runs])
    title = fit(title, TITLE_WIDTH, 12, bold=True)
    sheet.words(LEFT, sheet.height - 13, title, size=12, color=INK, bold=True, up="top")
    if len(runs) == 1:
        verdict = runs[0].data.verdict
        words = clean(str(verdict.get("summary") or "")) if verdict else ""
    else:
        words = f"compared with {len(runs) - 1} other{'s' if len(runs) > 2 else ''}; validation solid, training dashed"
        _legend(sheet, runs, legend)
    size = 9 if width_of(words, 9) <= TITLE_WIDTH else 8
    sheet.words(LEFT, sheet.height - 32.5, fit(words, TITLE_WIDTH, size), size=size, color=MUTED, up="top")
    return sheet, plots


def _legend(sheet: Sheet, runs: list[Run], depth: float) -> None:
    """A small table in two columns, one entry a run: its colour, its name, its two best values."""
    per_column = (len(runs) + 1) // 2
    for index, run in enumerate(runs):
        left = LEFT if index < per_column else LEFT + PANEL_WIDTH + BETWEEN
        right = left + PANEL_WIDTH + 50
        columns = (right - 73, LOSS, "lowest loss"), (right, ACCURACY, "best accuracy")
        y = depth - 4 - LEGEND_ROW * (1 + index % per_column)
        if index % per_column == 0:
            for place, _, words in columns:
                sheet.words(place, y + LEGEND_ROW, words, size=7.5, color=MUTED, across="right", up="center")
        sheet.line([(left, y), (left + 18, y)], color=run.color, width=2.4, dash=_validation_dash(index))
        figures = [_best_text(run, panel) for _, panel, _ in columns]
        room = columns[0][0] - max(width_of(figures[0], 8), width_of(columns[0][2], 7.5)) - 6 - (left + 24.5)
        label = fit(f"#{run.data.id}  {run.data.name}", room, 8.5)
        sheet.words(left + 24.5, y, label, size=8.5, color=INK, up="center")
        for (place, _, _), words in zip(columns, figures, strict=True):
            sheet.words(place, y, words, size=8, color=MUTED, across="right", up="center")


def _best_text(run: Run, panel: Panel) -> str:
    values = run.curves.series(panel.validation)
    best = best_index(values, highest=panel.highest)
    if best is None:
        return "none"
    return f"{panel.text(float(values[best]))} @ {run.curves.epochs[best]:.0f}"


def _validation_dash(index: int) -> Dash:
    """Return the dash of a run's validation curve; beyond the palette's size colours repeat, dash-dotted."""
    return () if index < len(PALETTE) else (6, 1.5, 1.5, 1.5)


def _draw_panel(plot: Plot, panel: Panel, runs: list[Run], x: str, x_label: str) -> None:
    alone = len(runs) == 1
    axis.set_values(plot, [run.curves.series(name) for run in runs for name in panel.names], highest=panel.highest)
    axis.set_bottom(plot, [run.x for run in runs], x_label, by_epoch=x == "epoch")
    for index, run in enumerate(runs):
        _draw_line(plot, run, panel.train, run.train_color, train=True, alone=alone, dash=() if alone else (3, 2))
        _draw_line(plot, run, panel.validation, run.color, train=False, alone=alone, dash=_validation_dash(index))
    plot.head(f"{panel.title}{', log scale' if plot.y.log else ''}")
    if not any(np.isfinite(run.curves.series(name)).any() for run in runs for name in panel.names):
        _say_empty(plot, runs)
    if alone:
        findings.draw(plot, panel.title, runs[0].data.verdict, runs[0].curves.epochs, runs[0].x)
        _mark_gaps(plot, panel, runs[0])
    taken = _label_ends(plot, panel, runs)
    for run in runs:
        _mark_best(plot, panel, run, taken, labelled=alone)


def _draw_line(plot: Plot, run: Run, name: str, color: str, *, train: bool, alone: bool, dash: Dash) -> None:
    values = run.curves.series(name)
    width = {(True, True): 1.5, (True, False): 2.0, (False, True): 1.1, (False, False): 1.6}[alone, train]
    if len(values) > 300:
        width *= 0.6
    alpha = 1.0 if alone or not train else 0.55
    plot.curve(run.x, values, color=color, width=width, dash=dash, alpha=alpha, level=3 if train else 4)
    lone = lone_points(values)
    if lone.any():
        plot.sheet.dots(plot.at(run.x[lone], values[lone]), color=color, size=4.5, alpha=alpha, level=4)


def _mark_gaps(plot: Plot, panel: Panel, run: Run) -> None:
    """Mark with a cross where values stop being finite: a curve that merely ends would look like a short run."""
    missing = np.isnan(run.curves.series(panel.train)) | np.isnan(run.curves.series(panel.validation))
    starts = missing & ~np.concatenate(([False], missing[:-1]))
    if starts.any():
        places = [(plot.across(x), plot.frame.bottom) for x in run.x[starts]]
        plot.sheet.dots(places, color=WARNING, size=5, edge=1.4, shape=CROSS)
        words = "\u00d7 not finite from here"
        plot.sheet.words(plot.frame.right, plot.frame.top + HEAD_RISE, words, size=7.5, color=WARNING, across="right")


def _say_empty(plot: Plot, runs: list[Run]) -> None:
    waiting = "no epoch ended" if all(run.data.ended for run in runs) else "no epoch has ended yet"
    text = "no finite value in any epoch" if any(len(run.x) for run in runs) else waiting
    plot.sheet.words(*plot.frame.middle, text, size=9, color=MUTED, across="center", up="center")


def _label_ends(plot: Plot, panel: Panel, runs: list[Run]) -> list[Box]:
    """Name each curve at its end: train and validation of one run, the numbers of several. Returns the room taken."""
    ends: list[tuple[float, float, str, str]] = []  # x and y on the sheet, words, colour
    for run in runs:
        names = [(panel.train, "train", run.train_color), (panel.validation, "validation", run.color)]
        if len(runs) > 1:
            names = [(panel.validation, f"#{run.data.id}", run.color)]
        for name, words, color in names:
            values = run.curves.series(name)
            finite = np.flatnonzero(np.isfinite(values))
            if len(finite):
                ends.append((plot.across(run.x[finite[-1]]), plot.up(values[finite[-1]]), words, color))
    bold = len(runs) > 1
    size = 8.0 if bold else 9.0
    frame, covered = plot.frame, []
    ends.sort()
    last = max((plot.across(run.x[-1]) for run in runs if len(run.x)), default=0.0)
    while ends:  # those that end at about the same place share a column; the longest have theirs beside the plot
        column = [end for end in ends if end[0] < ends[0][0] + 13.5]
        ends = ends[len(column) :]
        left = frame.right + 2.3 if column[-1][0] >= last - 0.5 else column[-1][0] + 6
        heights = labels.spread([end[1] for end in column], 1.2 * size, frame.bottom + 4, frame.top - 2)
        for (_, _, words, color), height in zip(column, heights, strict=True):
            width, depth = labels.text_size(words, size, bold=bold)
            covered.append(Box(left, height - depth / 2, left + width, height + depth / 2))
            _write(plot.sheet, words, covered[-1], size, color, bold=bold)
    return covered


def _write(sheet: Sheet, words: str, box: Box, size: float, color: str, *, bold: bool = False) -> None:
    """Write over the curves in the middle of a box, with a white edge that keeps it legible."""
    sheet.words(*box.middle, words, size=size, color=color, bold=bold, across="center", up="center", edge=2.5, level=7)


def _mark_best(plot: Plot, panel: Panel, run: Run, taken: list[Box], *, labelled: bool) -> None:
    values = run.curves.series(panel.validation)
    best = best_index(values, highest=panel.highest)
    if best is None:
        return
    y = float(values[best])
    place = plot.across(run.x[best]), plot.up(y)
    plot.sheet.dots([place], color=run.color, size=7 if labelled else 6, edge=1.8)
    if labelled:
        words = f"{panel.best_word} {panel.text(y)}, epoch {run.curves.epochs[best]:.0f}"
        box = labels.place(plot, place, labels.text_size(words, 8.5), taken, above=panel.highest)
        _write(plot.sheet, words, box, 8.5, INK)
