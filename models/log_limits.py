"""Log processors against log injection and flooding: escaped and truncated values, a limit on repeats.

Requests choose their paths and names, and exceptions quote them. None of it may look like a line of ours, move a
terminal's cursor, or push yesterday's lines out of the files.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from structlog.typing import EventDict, WrappedLogger

MOST_CHARACTERS = 2000
MOST_OF_AN_EXCEPTION = 12_000
EXCEPTION = "exception"
"""Key of a formatted traceback, which has lines."""
REPEATS, ALTOGETHER, WINDOW_SECONDS = 20, 500, 10.0
"""Records of one kind, and of all kinds, that are written in a window."""
MAX_KINDS = 1000


def bound_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A structlog processor that escapes and truncates a record's values."""
    return {clean(str(key)): _bound(str(key), value) for key, value in event.items()}


def _bound(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if key == EXCEPTION:
        text = str(value)
        half = MOST_OF_AN_EXCEPTION // 2
        text = text if len(text) <= 2 * half else f"{text[:half]}\n...\n{text[-half:]}"
        return "\n    ".join(clean(line) for line in text.splitlines())
    return clean(value if isinstance(value, str) else repr(value))


def clean(text: str, most: int = MOST_CHARACTERS) -> str:
    """One line of printable text: control and invisible characters as escapes, and cut where it is long."""
    cut = text if len(text) <= most else f"{text[: most - 40]}... ({len(text):,} characters)"
    if cut.isprintable():
        return cut
    return "".join(character if character.isprintable() else _escaped(character) for character in cut)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class RepeatLimit(logging.Filter):
    """Limits records of one kind per interval; the next one reports how many were dropped.

    A kind is a logger, a level and a message before its values are put in.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[object, tuple[float, int]] = {}
        """When a kind's window began, and how many records came in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a record."""
        written = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
        kind = (record.name, record.levelno, str(written)[:200])
        passes, left_out = self._count(kind, REPEATS)
        if not passes or not self._count(None, ALTOGETHER)[0]:
            return False
        if left_out:
            self._add(record, f" ({left_out:,} more like this were left out before)")
        return True

    def _count(self, kind: object, most: int) -> tuple[bool, int]:
        """Count one record: whether it may pass, and how many of the window before could not."""
        now = self._clock()
        began, count = self._kinds.get(kind, (now, 0))
        left_out = 0
        if now - began >= WINDOW_SECONDS:
            left_out = max(0, count - most)
            began, count = now, 0
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            self._kinds = {None: self._kinds.get(None, (now, 0))}
        self._kinds[kind] = (began, count + 1)
        return count < most, left_out

    @staticmethod
    def _add(record: logging.LogRecord, text: str) -> None:
        if isinstance(record.msg, dict):
            record.msg = {**record.msg, "event": f"{record.msg.get('event')}{text}"}
        else:
            record.msg, record.args = f"{record.getMessage()}{text}", None
