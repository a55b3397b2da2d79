"""What people see: tables, pairs, figures in columns; or, with --json, the lab's own JSON and nothing else."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models import text
from models.errors import EpochalError

STATUS_STYLES = {
    "queued": "dim",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "diverged": "red",
    "cancelled": "yellow",
}
SEVERITY_STYLES = {"good": "green", "info": "cyan", "warning": "yellow", "problem": "red"}

PIPED_WIDTH = 160
"""Columns where output goes to a file or a pipe, which have no width of their own."""

console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Mode:
    """Whether this invocation writes JSON for scripts; set by the --json option."""

    json = False


def set_json(value: bool) -> bool:
    """The callback of --json."""
    Mode.json = value
    return value


def say(text: str, style: str | None = None) -> None:
    """A line for people; silent with --json. The text is shown as it is: names may hold brackets."""
    if not Mode.json:
        console.print(escape(text), style=style)


def print_json(document: Any) -> None:
    """A document for scripts, on one or more lines of standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_error(error: EpochalError) -> None:
    """Title, detail and fix on standard error; with --json the problem document on standard output too."""
    if Mode.json:
        document = getattr(error, "document", None) or {
            "title": error.title,
            "detail": error.detail,
            "code": error.code,
            **({"fix": error.fix} if error.fix else {}),
        }
        print_json(document)
    errors.print(escape(error.title), style="bold red")
    document = getattr(error, "document", {})
    entries = [entry for entry in document.get("errors", ()) if isinstance(entry, dict) and "field" in entry]
    if len(entries) > 1:
        for entry in entries:
            errors.print(f"  [bold]{escape(str(entry['field']))}[/]: {escape(str(entry.get('message', '')))}")
    else:
        errors.print(f"  {escape(error.detail)}")
    for entry in entries:
        if entry.get("nearest") is not None:
            errors.print(
                f"  nearest valid value of {escape(str(entry['field']))}: {escape(json.dumps(entry['nearest']))}"
            )
    if error.fix:
        errors.print(escape(str(error.fix)), style="dim")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A plain table; the columns named in `right` hold figures, the last one holds text that may be long.

    Cells may carry markup.
    """
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        grid.add_column(
            name, justify="right" if name in right else "left", no_wrap=name != columns[-1], overflow="fold"
        )
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    console.print(grid)


def status_text(status: str) -> str:
    """A status in its colour."""
    return f"[{STATUS_STYLES.get(status, 'white')}]{escape(status)}[/]"


def figure(value: float | None, digits: int = 4) -> str:
    """A number for a column; a dash for none, as after a divergence."""
    return "-" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """A span of time; a dash for none."""
    return "-" if seconds is None else text.duration(seconds)


def age(moment: str | None) -> str:
    """How long ago an ISO moment was."""
    if not moment:
        return "-"
    then = datetime.fromisoformat(moment)
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return text.ago((datetime.now(UTC) - then).total_seconds())
