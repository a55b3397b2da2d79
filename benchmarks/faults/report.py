"""The outcomes of the cases as a table: on the terminal, and between two marks in docs/reliability.md."""

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.rows import KEPT, make_row, put_between, rows_between

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
HEADER = "| # | fault | what was done | what happened | seconds | as promised |\n|---|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case, done."""

    number: int
    title: str
    done: str
    promise: str
    happened: str
    seconds: float
    as_promised: str
    """yes, no, or skipped."""
    healthz_seconds: float | None
    """The slowest answer of /healthz meanwhile."""


def print_table(outcomes: list[Outcome]) -> None:
    """Print the outcomes and their sum."""
    table = Table(show_lines=False)
    for name in ("#", "fault", "what happened", "seconds", "as promised"):
        table.add_column(name, justify="right" if name in ("#", "seconds") else "left")
    for each in outcomes:
        table.add_row(str(each.number), each.title, each.happened, f"{each.seconds:.1f}", each.as_promised)
    Console().print(table)
    print(summary(outcomes))


def summary(outcomes: list[Outcome]) -> str:
    """How many cases went as promised, and the slowest answer of /healthz."""
    counts = {word: sum(each.as_promised == word for each in outcomes) for word in ("yes", "no", "skipped")}
    slowest = max((each.healthz_seconds or 0.0 for each in outcomes), default=0.0)
    return (
        f"{counts['yes']} of {len(outcomes)} as promised, {counts['no']} not, {counts['skipped']} cannot be run here; "
        f"{sum(each.seconds for each in outcomes):.0f} s; slowest /healthz {slowest * 1000:.0f} ms"
    )


def machine() -> str:
    """The machine and its load, on which latencies depend."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GB of memory, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}, load average {os.getloadavg()[2]:.0f}"
    )


def write_table(page: Path, outcomes: list[Outcome]) -> None:
    """Put rows into the page; those of cases that were not run now stay as they are."""
    rows = rows_between(page, BEGIN, END, {each.number: _row(each) for each in outcomes})
    held = sum(row.endswith(KEPT) for row in rows.values())
    said = f"{time.strftime('%d %B %Y')}, {machine()}: {held} of {len(rows)} as promised."
    put_between(page, BEGIN, END, "\n".join([said, "", HEADER, *rows.values()]))


def _row(outcome: Outcome) -> str:
    return make_row(
        outcome.number, outcome.title, outcome.done, outcome.happened, f"{outcome.seconds:.1f}", outcome.as_promised
    )
