"""Draws a search: accuracy by trial with the best one so far, and accuracy by each field's value."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.spec.search import Choices, Dimension, Numbers, space_of, value_text
from models.spec.trials import title_of
from models.studies.search import Ending, Trial, best_trial
from models.studies.search_results import SearchResult
from models.text import percent
from service.drawing import axis
from service.drawing.canvas import FAINT, INK, MUTED, PALETTE, WARNING, check_format, drawing
from service.drawing.plot import EDGE, Plot, Scale
from service.drawing.series import Floats
from service.drawing.sheet import CROSS, DOT, Box, Sheet
from service.drawing.text import clean, fit, width_of

WIDTH, LEFT, RIGHT = 547.2, 49.0, 14.0  # points, as all lengths here
HEAD, ABOVE, UPPER, BELOW = 46.0, 8.0, 138.0, 38.0
COLUMNS, BETWEEN, PANEL_HEAD, PANEL, PANEL_BELOW = 4, 18.0, 18.0, 96.0, 34.0
BEST, RUNNING = PALETTE[1], PALETTE[5]
TICK = 7.5
MOST_LABELS = 5


def render_search(search: SearchResult, *, title: str, format: str = "png") -> bytes:  # noqa: A002
    """Draw a search; with no trial that has a value, a sheet that says so."""
    check_format(format)
    with drawing():
        return _draw(search, title).save(format, title=clean(title))


def _draw(search: SearchResult, title: str) -> Sheet:
    space = space_of(search.spec)
    lines = -(-len(space) // COLUMNS)
    panel_height = PANEL_HEAD + PANEL + PANEL_BELOW
    sheet = Sheet(WIDTH, HEAD + ABOVE + UPPER + BELOW + lines * panel_height)
    room = WIDTH - LEFT - RIGHT
    best, values = search.best, _values(search.trials)
    sheet.words(LEFT, sheet.height - 12.5, fit(title, room, 12, bold=True), size=12, color=INK, bold=True, up="top")
    sheet.words(LEFT, sheet.height - 29, fit(_subtitle(best), room, 9), size=9, color=MUTED, up="top")
    top = sheet.height - HEAD - ABOVE
    upper = Plot(sheet, Box(LEFT, top - UPPER, WIDTH - RIGHT, top))
    if not values:
        words = "no trial has a value yet"
        sheet.words(*upper.frame.middle, words, size=10, color=MUTED, across="center", up="center")
    _by_trial(upper, search, values, best)
    order = sorted(space, key=lambda name: -(search.importances or {}).get(name, 0.0))
    width = (room - (COLUMNS - 1) * BETWEEN) / COLUMNS
    for index, name in enumerate(order):
        line, column = divmod(index, COLUMNS)
        left = LEFT + column * (width + BETWEEN)
        panel_top = top - UPPER - BELOW - line * panel_height - PANEL_HEAD
        plot = Plot(sheet, Box(left, panel_top - PANEL, left + width, panel_top))
        plot.y = upper.y
        _panel_head(plot, name, search.importances)
        _by_value(plot, space[name], name, search.trials, values, best)
        _rule_accuracies(plot, labels=column == 0)
    return sheet


def _subtitle(best: Trial | None) -> str:
    if best is None or best.value is None:
        return "no trial was run in full yet"
    return f"best: {percent(best.value)} by trial {best.number + 1} with {title_of(best.params)}"


def _values(trials: Sequence[Trial]) -> dict[int, float]:
    """The best accuracies of trials so far, running ones included, diverged ones left out."""
    return {
        trial.number: trial.values[max(trial.values)]
        for trial in trials
        if trial.values and not trial.diverged and trial.ending is not Ending.FAILED
    }


def _accuracy_scale(values: Mapping[int, float]) -> Scale:
    if not values:
        return Scale(0, 1)
    low, high = min(values.values()), max(values.values())
    room = max(high - low, 0.02)
    return Scale(max(0.0, low - 0.14 * room), min(1.02, high + 0.12 * room))


def _by_trial(plot: Plot, search: SearchResult, values: Mapping[int, float], best: Trial | None) -> None:
    plot.y = _accuracy_scale(values)
    last = max(len(search.trials), 1)
    plot.x = Scale(0.4, last + 0.6)
    _rule_accuracies(plot, labels=True)
    ticks = [tick for tick in axis.nice_ticks(plot.x) if tick == int(tick) and 1 <= tick <= last]
    axis.rule_bottom(plot, ticks, [f"{tick:.0f}" for tick in ticks], "trial")
    whole = {
        trial.number: value
        for trial in search.trials
        if trial.ending is Ending.COMPLETE and (value := values.get(trial.number)) is not None
    }
    if whole:
        numbers: Floats = np.arange(1, last + 1, dtype=np.float64)
        reached = [whole.get(index, np.nan) for index in range(last)]
        so_far: Floats = np.fmax.accumulate(np.asarray(reached, np.float64))
        steps = np.repeat(numbers, 2)[1:], np.repeat(so_far, 2)[:-1]
        plot.curve(*steps, color=BEST, width=1.3, alpha=0.75, level=3)
    _dots(plot, search.trials, {trial.number: trial.number + 1.0 for trial in search.trials}, values, best, size=6)
    _legend(plot, search.trials)
    plot.sheet.words(plot.frame.left, plot.frame.top + 6, "validation accuracy", size=8, color=MUTED, up="center")


def _dots(
    plot: Plot,
    trials: Sequence[Trial],
    places: Mapping[int, float],
    values: Mapping[int, float],
    best: Trial | None,
    *,
    size: float,
) -> None:
    """Draw trials at their places: full ones as dots, ended early or running as rings, diverged as crosses below."""
    bottom = plot.frame.bottom + 4
    for trial in trials:
        x = plot.across(places[trial.number])
        if trial.diverged:
            plot.sheet.dots([(x, bottom)], color=WARNING, size=size, edge=1.3, shape=CROSS)
        elif trial.number in values:
            color, edge = MARKS[trial.ending]
            plot.sheet.dots([(x, plot.up(values[trial.number]))], color=color, size=size, edge=edge)
    if best is not None and best.number in values:
        place = plot.across(places[best.number]), plot.up(values[best.number])
        plot.sheet.dots([place], color=BEST, size=size + 3, edge=2, level=7)


MARKS = {Ending.COMPLETE: (PALETTE[0], 0.0), Ending.PRUNED: (MUTED, 1.1), Ending.WAITING: (RUNNING, 1.6)}
"""Colour and edge of a trial that has a value."""


def _legend(plot: Plot, trials: Sequence[Trial]) -> None:
    """Say which mark is which, on the right above the plot, for those that occur."""
    y, x = plot.frame.top + 6, plot.frame.right
    entries = [
        (any(trial.diverged for trial in trials), "diverged", WARNING, 1.3, True),
        (any(trial.ending is Ending.PRUNED for trial in trials), "ended early", MUTED, 1.1, False),
        (any(trial.ending is Ending.WAITING and trial.values for trial in trials), "running", RUNNING, 1.6, False),
        (best_trial(trials) is not None, "in full", PALETTE[0], 0.0, False),
    ]  # fmt: skip
    for occurs, words, color, edge, is_cross in entries:
        if occurs:
            x -= width_of(words, 8)
            plot.sheet.words(x, y, words, size=8, color=INK, up="center")
            plot.sheet.dots([(x - 7, y)], color=color, size=5.5, edge=edge, shape=CROSS if is_cross else DOT)
            x -= 22


def _rule_accuracies(plot: Plot, *, labels: bool) -> None:
    ticks = axis.nice_ticks(plot.y)
    for tick in ticks[:: 2 if len(ticks) > 6 else 1]:
        y = plot.up(tick)
        plot.sheet.line([(plot.frame.left, y), (plot.frame.right, y)], color=FAINT, width=0.7, level=0.5)
        if labels:
            words = f"{round(100 * tick, 6):g}%"
            plot.sheet.words(plot.frame.left - 4.2, y, words, size=8, color=INK, across="right", up="center")


def _panel_head(plot: Plot, name: str, importances: Mapping[str, float] | None) -> None:
    """The field above its panel, and how much it matters below."""
    frame = plot.frame
    words = fit(name, frame.right - frame.left, 8.5, bold=True, keep_end=12)
    plot.sheet.words(frame.left, frame.top + 5, words, size=8.5, color=INK, bold=True)
    if importances is not None:
        part = f"importance {100 * importances.get(name, 0.0):.0f}%"
        plot.sheet.words(frame.middle[0], frame.bottom - 17, part, size=8, color=MUTED, across="center", up="top")


def _by_value(
    plot: Plot,
    dimension: Dimension,
    name: str,
    trials: Sequence[Trial],
    values: Mapping[int, float],
    best: Trial | None,
) -> None:
    """Draw trials by their value of one field; values of a choice side by side."""
    if isinstance(dimension, Choices):
        plot.x = Scale(-0.6, len(dimension.values) - 0.4)
        places = {trial.number: float(dimension.index_of(trial.params[name])) for trial in trials}
        each = (plot.frame.right - plot.frame.left) / len(dimension.values)
        step = max(1, -(-len(dimension.values) // MOST_LABELS))
        ticks = [(float(index), value_text(dimension.values[index])) for index in range(0, len(dimension.values), step)]
        _rule_below(plot, ticks, room=step * each - 3)
    else:
        plot.x = _scale_of(dimension)
        places = {trial.number: float(trial.params[name]) for trial in trials}
        _rule_below(plot, _ticks_of(plot.x, dimension), room=60)
    _dots(plot, trials, places, values, best, size=4.5)


def _scale_of(dimension: Numbers) -> Scale:
    low, high = dimension.low, dimension.high
    if dimension.log:
        pad = (high / low) ** 0.04
        return Scale(low / pad, high * pad, log=True)
    return Scale(low - 0.04 * (high - low), high + 0.04 * (high - low))


def _ticks_of(scale: Scale, dimension: Numbers) -> list[tuple[float, str]]:
    if not dimension.log:
        ticks = [tick for tick in axis.nice_ticks(scale) if dimension.low <= tick <= dimension.high]
        ticks = [tick for tick in ticks if not dimension.whole or tick == int(tick)]
        return [(tick, f"{tick:g}") for tick in ticks[:: max(1, -(-len(ticks) // 4))]]
    powers = [10.0**power for power in range(-15, 16) if scale.low * 0.999 <= 10.0**power <= scale.high * 1.001]
    if len(powers) < 2:
        middle = math.sqrt(dimension.low * dimension.high)
        powers = [float(dimension.low), float(f"{middle:.2g}"), float(dimension.high)]
    return [(power, f"{power:g}".replace("e-0", "e-").replace("e+0", "e")) for power in powers]


def _rule_below(plot: Plot, ticks: Sequence[tuple[float, str]], *, room: float) -> None:
    bottom = plot.frame.bottom
    for tick, words in ticks:
        x = plot.across(tick)
        plot.sheet.line([(x, bottom - 2.7), (x, bottom)], color=EDGE, width=0.8)
        plot.sheet.words(x, bottom - 5.5, fit(words, room, TICK), size=TICK, color=INK, across="center", up="top")
