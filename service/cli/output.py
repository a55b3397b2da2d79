"""Terminal output: tables, pairs, formatted numbers; with --json only the lab's own JSON."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models import text
from models.errors import EpochalError
from service.cli.visible import INVISIBLE, visible

STATUS_STYLES = {
    "queued": "dim",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "diverged": "red",
    "cancelled": "yellow",
}
SEVERITY_STYLES = {"good": "green", "info": "cyan", "warning": "yellow", "problem": "red"}

PIPED_WIDTH = 10_000
"""Width of output to a file or a pipe: nothing is truncated or wrapped there."""
NARROWEST_TEXT = 24
"""Columns that the last column of a table gets before others are left out for it."""
MOST_CHOICES = 20
"""Values of a field that are listed where none of them is like the one that was given."""

for stream in ("stdout", "stderr"):
    if getattr(sys, stream) is None:  # closed by the parent process
        setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for as long as the process lives)

console = Console(
    highlight=False, emoji=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
)
errors = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

_FOR_SCRIPTS = re.compile(f"[{INVISIBLE}]")


class Mode:
    """Whether this invocation writes JSON for scripts; set by the --json option."""

    json = False


def set_json(value: bool) -> bool:
    """Set the mode; callback of --json."""
    Mode.json = value
    return value


def shown(text: object) -> str:
    """Escape `visible` text for rich's markup, so that brackets are printed literally."""
    return escape(visible(text))


def say(text: str, style: str | None = None) -> None:
    """Print a line; nothing with --json. Brackets in the text are printed literally."""
    if not Mode.json:
        console.print(shown(text), style=style)


def print_json(document: Any) -> None:
    """Print a document as JSON on standard output."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    sys.stdout.write(_FOR_SCRIPTS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


def print_error(error: EpochalError) -> None:
    """Print title, detail and fix on standard error; with --json also the problem document on standard output."""
    if Mode.json:
        document = getattr(error, "document", None) or {
            "title": error.title,
            "detail": error.detail,
            "code": error.code,
            **({"fix": error.fix} if error.fix else {}),
            **({"errors": error.extra["errors"]} if "errors" in error.extra else {}),
        }
        print_json(document)
    errors.print(shown(error.title), style="bold red")
    document = getattr(error, "document", {})
    found = document.get("errors") or error.extra.get("errors") or ()
    entries = [entry for entry in found if isinstance(entry, dict) and "field" in entry]
    if len(entries) > 1:
        for entry in entries:
            errors.print(f"  [bold]{shown(entry['field'])}[/]: {shown(entry.get('message', ''))}")
    else:
        # Line breaks of our own are meant (a log's last lines); those in a lab's answer may be in what it quotes.
        for line in [error.detail] if document else error.detail.splitlines():
            errors.print(f"  {shown(line)}")
    for entry in entries:
        if entry.get("nearest") is not None and "did you mean" not in str(entry.get("message")):
            errors.print(f"  nearest valid value of {shown(entry['field'])}: {shown(json.dumps(entry['nearest']))}")
        elif 0 < len(choices := entry.get("choices") or ()) <= MOST_CHOICES:
            errors.print(f"  values of {shown(entry['field'])}: {shown(', '.join(map(str, choices)))}")
    if error.fix:
        errors.print(shown(error.fix), style="dim")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    optional: Sequence[str] = (),
    cut: bool = False,
) -> None:
    """A plain table; the columns named in `right` hold figures, the last one holds text that may be long.

    Where the terminal is too narrow, `optional` columns are left out, the first one first; then the text is truncated
    (`cut`) or wrapped. Cells may carry markup.
    """
    cells = [[Text.from_markup(cell, emoji=False) for cell in row] for row in rows]
    widths = {
        name: max([cell_len(name), *(row[place].cell_len for row in cells)]) for place, name in enumerate(columns)
    }
    *others, last = columns
    for name in optional:
        if _room(others, widths) >= min(widths[last], NARROWEST_TEXT):
            break
        others.remove(name)
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for name in (*others, last):
        grid.add_column(
            name, justify="right" if name in right else "left", no_wrap=cut or name in right, overflow="fold"
        )
    kept = [columns.index(name) for name in (*others, last)]
    for row in cells:
        if cut:
            row[-1].truncate(max(_room(others, widths), 8), overflow="ellipsis")
        grid.add_row(*(row[place] for place in kept))
    console.print(grid)


def _room(others: Sequence[str], widths: dict[str, int]) -> int:
    """Return the width left beside columns, with two spaces between each."""
    return console.width - sum(widths[name] + 2 for name in others)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    console.print(grid)


def status_text(status: str) -> str:
    """Return a status with its colour."""
    return f"[{STATUS_STYLES.get(status, 'white')}]{shown(status)}[/]"


def figure(value: float | None, digits: int = 4) -> str:
    """Format a number for a column; a dash for None, as after a divergence."""
    return "-" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Format a duration; a dash for None."""
    return "-" if seconds is None else text.duration(seconds)


def age(moment: str | None) -> str:
    """Format how long ago an ISO timestamp was."""
    if not moment:
        return "-"
    then = datetime.fromisoformat(moment)
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return text.ago((datetime.now(UTC) - then).total_seconds())
