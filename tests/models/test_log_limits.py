"""No request can forge a log line, control a terminal, or flood the log."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from models import log_limits
from models.log_limits import RepeatLimit, clean
from models.logs import configure_logs

FORGED = "/x\n2026-01-01 INFO service.http.perimeter: all is well\x1b[2J\u202e\u2028end"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    logging.captureWarnings(False)


@given(st.text(max_size=200))
def test_any_text_becomes_one_printable_line(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert len(cleaned.splitlines()) <= 1
    cleaned.encode()


def test_long_text_is_cut_and_says_so() -> None:
    cleaned = clean("a" * 60_000)
    assert len(cleaned) <= log_limits.MOST_CHARACTERS
    assert cleaned.endswith("(60,000 characters)")


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_path_stays_in_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, on_terminal: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr.isatty", lambda: on_terminal)
        configure_logs()
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("theirs").exception("incident: %s", FORGED)
        structlog.get_logger("ours").exception("incident", path=FORGED, name=[FORGED])
    logging.getLogger("theirs").warning("%s", "a" * 100_000)
    written = capsys.readouterr().err
    assert not [line for line in written.splitlines() if line.startswith("2026-01-01 INFO")]
    assert "\x1b[2J" not in written
    assert "\u202e" not in written
    assert len(written) < 40_000
    if not on_terminal:
        assert len([json.loads(line) for line in written.splitlines()]) == 3


def record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("service", logging.ERROR, "file", 1, message, values, None)


def test_a_flood_is_thinned_and_counted() -> None:
    moment = [0.0]
    limit = RepeatLimit(clock=lambda: moment[0])
    passed = [limit.filter(record("%s failed", number)) for number in range(1000)]
    assert sum(passed) == log_limits.REPEATS
    assert limit.filter(record("something else"))
    moment[0] = log_limits.WINDOW_SECONDS
    late = record("%s failed", 1000)
    assert limit.filter(late)
    assert late.getMessage() == "1000 failed (980 more like this were left out before)"
    later = record("%s failed", 1001)
    assert limit.filter(later)
    assert later.getMessage() == "1001 failed"


def test_kinds_without_number_are_bounded_together() -> None:
    limit = RepeatLimit(clock=lambda: 0.0)
    assert sum(limit.filter(record(f"message {number}")) for number in range(5000)) == log_limits.ALTOGETHER
