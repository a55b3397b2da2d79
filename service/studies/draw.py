"""Draws studies: rows side by side on one scale, and differences with their intervals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.studies.blocks import difference_text
from models.studies.comparison import Judgement
from models.studies.results import RowResult
from service.drawing import axis
from service.drawing.canvas import FAINT, INK, MUTED, PALETTE, TRAIN_COLOR, VALIDATION_COLOR, check_format, drawing
from service.drawing.plot import Plot, Scale
from service.drawing.series import Curves, best_index, curves_of
from service.drawing.sheet import Box, Sheet
from service.drawing.text import clean, fit, width_of

COLUMNS = 6
PANEL, LOSS_HEIGHT, ACCURACY_HEIGHT = 132.0, 92.0, 92.0  # points, as all lengths here
LEFT, RIGHT, BETWEEN, ABOVE, MIDDLE, BELOW = 40.0, 14.0, 12.0, 44.0, 18.0, 40.0
LEGEND = 20.0
ROW_HEIGHT, LABEL_WIDTH, PLOT_WIDTH, FIGURES = 19.0, 210.0, 300.0, 150.0
MOST_LOSS = 4.0
"""Losses above it (a diverging run's) would flatten all others: the scale ends there."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of a study, ready to draw."""

    title: str
    note: str
    seeds: list[Curves]
    published: Sequence[float] = ()


def panels_of(rows: Sequence[RowResult], published: Mapping[str, Sequence[float]] | None = None) -> list[Panel]:
    """Panels of the rows that have epochs."""
    made = []
    for row in rows:
        seeds = [curves_of(run.history) for run in row.runs if run.history]
        if seeds:
            spread = row.spread
            note = "" if spread is None else f"best {100 * spread.mean:.1f}%"
            made.append(Panel(row.label, note, seeds, (published or {}).get(row.key, ())))
    return made


def render_panels(panels: Sequence[Panel], *, title: str, format: str = "png") -> bytes:  # noqa: A002
    """Draw rows side by side: loss above, accuracy below, all on one scale. With none, a sheet that says so."""
    check_format(format)
    with drawing():
        return _draw(panels).save(format, title=clean(title))


def _draw(panels: Sequence[Panel]) -> Sheet:
    lines = -(-max(len(panels), 1) // COLUMNS)
    columns = -(-max(len(panels), 1) // lines)
    height = ABOVE + LOSS_HEIGHT + MIDDLE + ACCURACY_HEIGHT + BELOW
    width = LEFT + RIGHT + columns * PANEL + (columns - 1) * BETWEEN
    sheet = Sheet(max(width, 360.0), lines * height + LEGEND)
    if not panels:
        sheet.words(sheet.width / 2, sheet.height / 2, "no row has an epoch yet", size=10, color=MUTED, across="center")
        return sheet
    losses, accuracies, epochs = _scales(panels)
    for index, panel in enumerate(panels):
        line, column = divmod(index, columns)
        top = sheet.height - LEGEND - line * height - ABOVE
        left = LEFT + column * (PANEL + BETWEEN)
        upper = Box(left, top - LOSS_HEIGHT, left + PANEL, top)
        middle = upper.bottom - MIDDLE
        lower = Box(left, middle - ACCURACY_HEIGHT, left + PANEL, middle)
        _title(sheet, panel, left, top)
        _half(sheet, panel, upper, losses, epochs, "loss", first=column == 0, bottom=False)
        _half(sheet, panel, lower, accuracies, epochs, "accuracy", first=column == 0, bottom=True)
    _legend(sheet, any(panel.published for panel in panels))
    return sheet


def _title(sheet: Sheet, panel: Panel, left: float, top: float) -> None:
    sheet.words(left, top + 20, fit(panel.title, PANEL, 8.5, bold=True), size=8.5, color=INK, bold=True)
    sheet.words(left, top + 7, fit(panel.note, PANEL, 8), size=8, color=MUTED)


def _scales(panels: Sequence[Panel]) -> tuple[Scale, Scale, Scale]:
    """One scale for all losses, one for all accuracies, one for all epochs."""
    all_seeds = [curves for panel in panels for curves in panel.seeds]
    losses = np.concatenate([values for one in all_seeds for values in (one.train_loss, one.val_loss)])
    losses = losses[np.isfinite(losses)]
    accuracies = np.concatenate(
        [values for one in all_seeds for values in (one.train_accuracy, one.val_accuracy)]
        + [np.asarray(panel.published, np.float64) for panel in panels]
    )
    accuracies = accuracies[np.isfinite(accuracies)]
    high = min(float(losses.max()), max(MOST_LOSS, 1.3 * float(np.median(losses)))) if len(losses) else 1.0
    low = min(float(losses.min()), high) if len(losses) else 0.0
    span = high - low or 0.1
    best = float(accuracies.max()) if len(accuracies) else 1.0
    worst = float(accuracies.min()) if len(accuracies) else 0.0
    room = max(best - worst, 0.04)
    last = max(max((float(one.epochs[-1]) for one in all_seeds), default=1.0), max(len(p.published) for p in panels))
    return (
        Scale(max(0.0, low - 0.06 * span), high + 0.06 * span),
        Scale(max(0.0, worst - 0.06 * room), min(1.02, best + 0.1 * room)),
        Scale(1 - max(0.3, 0.03 * last), last + max(0.3, 0.03 * last)),
    )


def _half(
    sheet: Sheet, panel: Panel, box: Box, values: Scale, epochs: Scale, name: str, *, first: bool, bottom: bool
) -> None:
    plot = Plot(sheet, box)
    plot.x, plot.y = epochs, values
    ticks = axis.nice_ticks(values)[:: 2 if len(axis.nice_ticks(values)) > 6 else 1]
    percent = name == "accuracy"
    words = [f"{round(100 * tick, 6):g}%" if percent else f"{tick:g}" for tick in ticks]
    for tick, word in zip(ticks, words, strict=True):
        y = plot.up(tick)
        sheet.line([(box.left, y), (box.right, y)], color=FAINT, width=0.7, level=0.5)
        if first:
            sheet.words(box.left - 4, y, word, size=7.5, color=INK, across="right", up="center")
    if first:
        sheet.words(box.left, box.top + 3, name, size=7, color=MUTED) if bottom else None
    if len(panel.published):
        numbers = np.arange(1, len(panel.published) + 1, dtype=np.float64)
        if percent:
            plot.curve(numbers, np.asarray(panel.published, np.float64), color=MUTED, width=1.0, dash=(3, 2), level=2.9)
    for index, curves in enumerate(panel.seeds):
        alpha = 1.0 if index == 0 else 0.35
        train, validation = (curves.series(f"{split}_{name}") for split in ("train", "val"))
        plot.curve(curves.epochs, train, color=TRAIN_COLOR, width=1.0, alpha=alpha, level=3)
        plot.curve(curves.epochs, validation, color=VALIDATION_COLOR, width=1.4, alpha=alpha, level=4)
        best = best_index(validation, highest=percent)
        if index == 0 and best is not None and values.low <= validation[best] <= values.high:
            place = plot.across(curves.epochs[best]), plot.up(float(validation[best]))
            sheet.dots([place], color=VALIDATION_COLOR, size=5, edge=1.4)
        if len(curves.epochs) == 1:
            for series, color in ((train, TRAIN_COLOR), (validation, VALIDATION_COLOR)):
                if np.isfinite(series[0]) and values.low <= series[0] <= values.high:
                    sheet.dots([(plot.across(1.0), plot.up(float(series[0])))], color=color, size=3.5)
    if bottom:
        ticks = [tick for tick in axis.nice_ticks(epochs) if tick == int(tick) and tick >= 1]
        for tick in ticks[:: max(1, -(-len(ticks) // 5))]:
            x = plot.across(tick)
            sheet.line([(x, box.bottom - 2.7), (x, box.bottom)], color=FAINT, width=0.8)
            sheet.words(x, box.bottom - 5, f"{tick:.0f}", size=7.5, color=INK, across="center", up="top")
        sheet.words(box.middle[0], box.bottom - 17, "epoch", size=7.5, color=MUTED, across="center", up="top")


def _legend(sheet: Sheet, published: bool) -> None:
    entries: list[tuple[str, str, tuple[float, ...]]] = [
        ("training", TRAIN_COLOR, ()),
        ("validation", VALIDATION_COLOR, ()),
    ]
    entries += [("published validation accuracy", MUTED, (3.0, 2.0))] if published else []
    x, y = LEFT, sheet.height - 12
    for words, color, dash in entries:
        sheet.line([(x, y), (x + 16, y)], color=color, width=1.6, dash=dash)
        sheet.words(x + 20, y, words, size=8, color=INK, up="center")
        x += 20 + width_of(words, 8) + 18


def render_differences(
    rows: Sequence[RowResult],
    *,
    fair: Collection[str],
    title: str,
    format: str = "png",  # noqa: A002
) -> bytes:
    """Draw each row's difference to its baseline with its interval, noise in grey."""
    check_format(format)
    with drawing():
        return _differences([row for row in rows if row.difference is not None], fair).save(format, title=clean(title))


def _differences(rows: Sequence[RowResult], fair: Collection[str]) -> Sheet:
    height = ROW_HEIGHT * max(len(rows), 1) + 58
    sheet = Sheet(LABEL_WIDTH + PLOT_WIDTH + FIGURES, height)
    if not rows:
        sheet.words(sheet.width / 2, height / 2, "nothing is compared yet", size=10, color=MUTED, across="center")
        return sheet
    found = [row.difference for row in rows if row.difference is not None]
    low = min(0.0, *(100 * one.low for one in found))
    high = max(0.0, *(100 * one.high for one in found))
    pad = 0.05 * max(high - low, 1.0)
    box = Box(LABEL_WIDTH, 40, LABEL_WIDTH + PLOT_WIDTH, height - 12)
    plot = Plot(sheet, box)
    plot.x, plot.y = Scale(low - pad, high + pad), Scale(0, len(rows))
    ticks = axis.nice_ticks(plot.x)
    axis.rule_bottom(plot, ticks, [f"{tick:g}" for tick in ticks], "points of validation accuracy, beside the baseline")
    plot.upright(0.0, color=INK, width=0.9, level=1)
    for index, (row, one) in enumerate(zip(rows, found, strict=True)):
        y = plot.up(len(rows) - index - 0.5)
        judgement = one.judgement if row.key in fair else Judgement.NOISE
        color = MUTED if judgement is Judgement.NOISE else PALETTE[2 if judgement is Judgement.BETTER else 1]
        sheet.line([(plot.across(100 * one.low), y), (plot.across(100 * one.high), y)], color=color, width=2.0, level=3)
        sheet.dots([(plot.across(100 * one.value), y)], color=color, size=6)
        label = fit(row.label, LABEL_WIDTH - 16, 8.5)
        sheet.words(LABEL_WIDTH - 8, y, label, size=8.5, color=INK, across="right", up="center")
        words = difference_text(row, fair=row.key in fair)
        sheet.words(box.right + 8, y, words, size=8, color=MUTED, up="center")
    return sheet
