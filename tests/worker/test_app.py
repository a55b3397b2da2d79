"""How a worker process takes signals."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from worker.app import _stopper


def test_a_signal_that_comes_while_another_is_handled_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event's lock is not reentrant: setting it again from within would hang the worker for good."""
    monkeypatch.setattr(state, "should_stop", None)
    times_set = []

    def set_while_another_signal_arrives() -> None:
        times_set.append(signal.SIGTERM)
        handler(signal.SIGTERM, None)

    runtime: Any = SimpleNamespace(shutdown=SimpleNamespace(set=set_while_another_signal_arrives))
    handler = _stopper(runtime)
    handler(signal.SIGINT, None)
    assert len(times_set) == 1
    assert state.should_stop == 0, "Celery ends, and with success"
