"""Reading tables: CSV from any spreadsheet, JSON Lines, and JSON of records or of a label for each file."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from models.data.importing.layouts.layout import Candidate, Files
from models.data.importing.name_encodings import guess_encoding
from models.data.importing.names import suffix_of

SEPARATED, LINES, WHOLE = {".csv", ".tsv", ".txt"}, {".jsonl", ".ndjson"}, {".json"}
DELIMITERS = ",;\t|"
MOST_TEXTS = 20
"""The most .txt files that are read: some are lists of labels, most are not."""
NOT_LABELS = ("submission",)
"""Parts of names of tables that only look like labels, such as Kaggle's sample submissions."""
MAX_COLUMNS = 1000
SEVERAL = " | "
"""Between the values of a list in JSON, once they are text."""


@dataclass
class Table:
    """A table's columns and rows, all as text."""

    name: str
    folder: tuple[str, ...]
    columns: list[str]
    rows: list[list[str]]


def read_tables(files: Files) -> list[Table]:
    """The tables among the files; those that cannot be read as one are left out."""
    tables = []
    texts = 0
    images = {one.parts[-1] for one in files.images[:1000]}
    for other in files.others:
        base, suffix = other.parts[-1].casefold(), suffix_of(other.parts[-1])
        if any(word in base for word in NOT_LABELS):
            continue
        texts += suffix == ".txt"
        if suffix == ".txt" and texts > MOST_TEXTS:
            continue
        table = None
        if suffix in SEPARATED:
            table = _read_separated(other, decode_text(files.read(other.number)), images)
        elif suffix in LINES:
            table = _of_records(other, _lines(decode_text(files.read(other.number))))
        elif suffix in WHOLE:
            table = _read_json(other, decode_text(files.read(other.number)))
        if table is not None and table.rows:
            tables.append(table)
    return tables


def decode_text(data: bytes) -> str:
    """Decode a table: UTF-8, UTF-16 (with a byte order mark, or many zeros), or what it looks like (Windows-1252)."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    start = data[:1000]
    if start.count(0) > len(start) // 4:  # every other byte of Western text is 0
        return data.decode("utf-16-be" if start[:1] == b"\0" else "utf-16-le", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        lines = [line for line in data.splitlines() if not line.isascii()]
        return data.decode(guess_encoding(lines, of_windows=True) or "cp1252", errors="replace")


def _read_separated(other: Candidate, text: str, images: set[str]) -> Table | None:
    text, delimiter = _without_preamble(text)
    first = text.partition("\n")[0]
    delimiter = delimiter or max(DELIMITERS, key=first.count)
    if not first.count(delimiter):
        if suffix_of(other.name) != ".txt" or " " not in first:
            return None
        delimiter = " "  # "1.jpg 0", as lists of files have it
    try:
        csv.field_size_limit(1 << 20)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error:
        return None
    if len(rows) < 1:
        return None
    width = len(rows[0])
    if any(value.strip().replace("\\", "/").rpartition("/")[2] in images for value in rows[0]):
        header = [f"column {at + 1}" for at in range(width)]  # the table begins with an image: it has no header
    else:
        header, rows = [column.strip() for column in rows[0]], rows[1:]
    rows = [[*row[:width], *[""] * (width - len(row))] for row in rows]
    return Table(other.name, other.parts[:-1], header, rows)


def _without_preamble(text: str) -> tuple[str, str | None]:
    """The text from its header on, and the delimiter that Excel's first line may name (`sep=;`)."""
    delimiter = None
    while True:
        line, end, rest = text.partition("\n")
        line = line.strip()
        if line.casefold().startswith("sep=") and len(line) == 5:
            delimiter = line[4]
        elif end and not line:
            pass
        elif not (end and line.startswith("#")):
            return text, delimiter
        text = rest


def _read_json(other: Candidate, text: str) -> Table | None:
    """A list of records, or an object with a label for each file."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(read, dict) and len(lists := [value for value in read.values() if isinstance(value, list)]) == 1:
        records = [record for record in lists[0] if isinstance(record, dict)]
        read = records or read  # {"version": 1, "images": [...]}
    if isinstance(read, list):
        return _of_records(other, (record for record in read if isinstance(record, dict)))
    if isinstance(read, dict) and read and all(map(_is_text, read.values())):
        rows = [[str(file), _as_text(label)] for file, label in read.items()]
        return Table(other.name, other.parts[:-1], ["file", "label"], rows)
    return None


def _of_records(other: Candidate, given: Iterable[dict[str, Any]]) -> Table | None:
    records = list(given)
    columns = list(dict.fromkeys(key for record in records for key in record))[:MAX_COLUMNS]
    rows = [[_as_text(record.get(column)) for column in columns] for record in records]
    return Table(other.name, other.parts[:-1], columns, rows) if columns else None


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.split("\n"):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def _as_text(value: Any) -> str:
    if not _is_text(value):
        return ""
    return SEVERAL.join(map(str, value)) if isinstance(value, list) else str(value)


def _is_text(value: Any) -> bool:
    """Whether a value of JSON is a text or a number, or a list of some."""
    if isinstance(value, list):
        return all(isinstance(one, str | int) for one in value)
    return isinstance(value, str | bool | int | float)
