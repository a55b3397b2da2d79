"""Helpers of the tests: whether a process lives, and waiting until a condition holds."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import pytest

T = TypeVar("T")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], T], seconds: float = 60.0, what: str = "") -> T:
    """The condition's first true value; the test fails when it does not come in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"waited {seconds:g} s in vain{f' for {what}' if what else ''}")
