"""Logs are lines of JSON, one per record, without passwords."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from models.logs import configure_logs


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_records_of_both_kinds_are_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger("ours").info("claimed", experiment=7)
    logging.getLogger("theirs").warning("seen %d", 3)
    ours, theirs = lines(capsys)
    assert (ours["event"], ours["experiment"], ours["level"]) == ("claimed", 7, "info")
    assert (theirs["event"], theirs["level"]) == ("seen 3", "warning")


def test_credentials_in_addresses_are_masked_in_messages_values_and_tracebacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs()
    log = structlog.get_logger("ours")
    log.info("connected to redis://user:hunter2@host/0", broker="rediss://:hunter2@host:6379/1")
    try:
        raise ConnectionError("postgresql://lab:hunter2@db/lab refused")
    except ConnectionError:
        log.exception("failed")
    logging.getLogger("theirs").error("cannot connect to %s", "redis://:hunter2@host/0")
    found = lines(capsys)
    assert len(found) == 3
    assert "hunter2" not in json.dumps(found)
    assert "redis://***@host/0" in str(found[0]["event"])


def test_what_celery_says_of_a_lost_broker_has_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs()
    try:
        raise ConnectionError("Connection refused")
    except ConnectionError:
        logging.getLogger("celery.worker.consumer").warning("Connection lost:\n  trying again", exc_info=True)
        logging.getLogger("theirs").warning("seen", exc_info=True)
    celerys, another = lines(capsys)
    assert celerys["event"] == "Connection lost: trying again"
    assert celerys["error"] == "ConnectionError: Connection refused"
    assert "exception" not in celerys
    assert "Traceback" in str(another["exception"]), "a fault of our own says where"


def test_a_record_says_which_part_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger("worker.reaper").info("enqueued")
    logging.getLogger("service.http.perimeter").error("incident\n{}")
    assert [line["logger"] for line in lines(capsys)] == ["worker.reaper", "service.http.perimeter"]
