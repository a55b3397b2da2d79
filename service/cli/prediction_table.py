"""A CSV table of predictions, a row an image, which also records what has been classified already."""

import csv
import fcntl
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from models.errors import EpochalError
from service.cli.visible import visible

FORMULA = ("=", "+", "-", "@", "'")
"""Spreadsheets take text that begins with one of these for a formula, unless a quote precedes it."""

Row = list[str]
"""The cells of one image, in the order of `header_of`."""


class TableTrouble(EpochalError):
    """The table cannot be continued."""

    code = "table-trouble"
    title = "The table cannot be continued"


def cell(text: object) -> str:
    """Text for a cell: on one line, and escaped so that spreadsheets do not take it for a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def header_of(top_k: int) -> list[str]:
    """The names of the columns; `by` identifies the network that predicts."""
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    pairs = [f"{name}{rank}" for rank in ranks for name in ("label", "probability")]
    return ["image", "by", "calibrated_probability", "known", *pairs, "error"]


def failed_row(name: str, error: str, top_k: int) -> Row:
    """The row of an image that could not be classified."""
    return [cell(name), *[""] * (3 + 2 * top_k), cell(error)]


class Table:
    """A CSV file that rows are appended to, by one process at a time."""

    def __init__(self, path: Path, file: IO[bytes], top_k: int) -> None:
        self.path = path
        self.names: set[str] = set()
        """The cells of images that have a row."""
        self.num_failed = 0
        self._by = ""
        self._file = file
        self._top_k = top_k

    @classmethod
    def open(cls, path: Path, top_k: int) -> "Table":
        """Open or create a table. Raises TableTrouble for a file of another form, one in use, or a device or pipe."""
        if str(path) == "-" or (path.exists() and not path.is_file()):
            raise TableTrouble(
                f"{path} is not a regular file",
                fix="Name a file: the same command reads it and continues after an interruption.",
            )
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            table = cls(path, file, top_k)
            table._read()
        except BlockingIOError:
            file.close()
            raise TableTrouble(f"{path} is being written by another command", fix="Wait for it.") from None
        except BaseException:
            file.close()
            raise
        return table

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)  # closing would not release it while a forked process lives
        self._file.close()

    def _read(self) -> None:
        """Read the existing rows; an incomplete last line is removed."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        wanted = header_of(self._top_k)
        try:
            found = list(csv.reader(io.StringIO(whole.decode(), newline="")))
        except (UnicodeDecodeError, csv.Error):
            found = [["?"]]
        if (found and found[0] != wanted) or (not whole and not _is_start_of(content, wanted)):
            raise TableTrouble(
                f"{self.path} exists and begins with other columns",
                fix="Name another file, or give the same --top-k as before.",
            )
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        if not found:
            self._write([wanted])
        for row in found[1:]:
            if len(row) != len(wanted):
                raise TableTrouble(f"{self.path} has a row of {len(row)} columns, not {len(wanted)}: {row[:1]}")
            self._note(row)

    def check_by(self, by: str) -> None:
        """Raise TableTrouble if there are rows by another network."""
        if self._by not in ("", by):
            raise TableTrouble(
                f"{self.path} has predictions by {self._by}, and these are by {by}",
                fix="Name another file with --csv, or name the network that the table is of.",
            )

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        for row in rows:
            self._note(row)
        self._write(rows)

    def _note(self, row: Sequence[str]) -> None:
        self.names.add(row[0])
        self._by = row[1] or self._by
        self.num_failed += bool(row[-1])

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
        """Append rows in one write, so that an interrupted command leaves complete rows."""
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\n").writerows(rows)
        self._file.write(out.getvalue().encode())
        self._file.flush()


def _is_start_of(content: bytes, header: Sequence[str]) -> bool:
    return ",".join(header).encode().startswith(content)
