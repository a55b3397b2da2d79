"""The blocks of a report (text, lists, tables, figures), and the formatting of a row's figures."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from models.studies.comparison import Judgement
from models.studies.results import RowResult, RunResult, points

DASH = "\u2013"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str
    strong: bool = False
    """Whether it is what a section concludes."""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row, the others hold figures unless they are in `texts`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...] = ()
    """Columns that hold words."""
    note: str = ""


FigureKind = Literal["panels", "differences", "kernels", "learning-rate-test", "robustness", "search"]


@dataclass(frozen=True)
class Figure:
    """A picture, drawn by the service."""

    kind: FigureKind
    rows: tuple[str, ...]
    """Keys of the rows that it shows."""
    caption: str
    section: int | None = None
    """Number of the section whose published curves it shows, from 0."""


Block = Text | Bullets | Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    question: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A report."""

    title: str
    question: str
    summary: tuple[str, ...]
    """The conclusions, one sentence each."""
    sections: tuple[Section, ...]


def score_text(row: RowResult) -> str:
    """62.1%, or 62.1% \u00b1 0.4 of several seeds."""
    spread = row.spread
    if spread is None:
        return DASH
    deviation = "" if spread.deviation is None else f" \u00b1 {100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}%{deviation}"


def published_text(row: RowResult) -> str:
    """The published score and its epoch."""
    if row.published is None or row.published.val_accuracy is None:
        return DASH
    at = "" if row.published.epoch is None else f" @ {row.published.epoch}"
    return f"{100 * row.published.val_accuracy:.1f}%{at}"


def difference_text(row: RowResult, *, fair: bool) -> str:
    """+2.3 (+0.9 to +3.7), and whether that is noise; `fair` says whether both rows were shortened alike."""
    found = row.difference
    if found is None:
        return "baseline" if row.baseline is None else DASH
    interval = f"{points(found.value)} ({points(found.low)} to {points(found.high)})"
    if not fair:
        return f"{interval}, not alike"
    return f"{interval}, noise" if found.judgement is Judgement.NOISE else interval


def epochs_text(row: RowResult) -> str:
    """Epochs that were run, of those that were asked for in full."""
    first = row.first
    done = len(first.history) if first else 0
    return f"{done}" if done == row.full.epochs else f"{done} of {row.full.epochs}"


def troubles(row: RowResult) -> Iterator[str]:
    """Why a row was not run, or how its runs ended if not normally."""
    if row.reason:
        yield f"Row {row.key} ({row.title}) was not run: {row.reason}."
    for run in row.runs:
        if run.status in ("failed", "cancelled", "diverged"):
            why = f": {run.reason}" if run.reason else ""
            yield f"Row {row.key}, experiment {run.experiment_id}, {ended(run.status)}{why.rstrip('.')}."


def ended(status: str) -> str:
    """How a run ended, in words."""
    return {"failed": "failed", "cancelled": "was ended early", "diverged": "diverged"}.get(status, status)


def best_epoch(run: RunResult | None) -> int | None:
    """The first epoch with the highest validation accuracy."""
    if run is None:
        return None
    known = [(epoch.val_accuracy, -epoch.epoch) for epoch in run.history if math.isfinite(epoch.val_accuracy)]
    return -max(known)[1] if known else None
