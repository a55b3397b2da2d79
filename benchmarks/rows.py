"""Numbered cases of a benchmark and their rows in a page: faults and attacks alike."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

ROW = re.compile(r"^\| (\d+) \|.*$", re.MULTILINE)
KEPT = "| yes |"
"""How a row ends whose promise was kept."""


def numbers(text: str, known: Iterable[int]) -> list[int]:
    """The numbers among `known` that '1,5,26-40' means."""
    found: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.strip().partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return sorted(found & set(known))


def what_went_wrong(error: Exception) -> str:
    """An error as the outcome of a case: a broken promise by its text alone, anything else with its type."""
    text = str(error) or type(error).__name__
    return text if isinstance(error, AssertionError) else f"{type(error).__name__}: {text}"


def make_row(number: int, *cells: str) -> str:
    """A row of a table in Markdown."""
    clean = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {number} | {clean} |"


def rows_between(page: Path, begin: str, end: str, changed: Mapping[int, str]) -> dict[int, str]:
    """The rows that stand between two marks in a page, with those that are new or changed, by number."""
    old = page.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    rows = {int(found[1]): found[0] for found in ROW.finditer(old)} | dict(changed)
    return dict(sorted(rows.items()))


def put_between(page: Path, begin: str, end: str, content: str) -> None:
    """Replace what stands between two marks in a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
