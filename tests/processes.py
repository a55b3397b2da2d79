"""Helpers of the tests: whether a process lives, and waiting until a condition holds."""

from collections.abc import Callable
from typing import TypeVar

from benchmarks.faults import waiting
from benchmarks.faults.waiting import alive

__all__ = ["alive", "wait_until"]

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float = 60.0, what: str = "a condition") -> T:
    """The condition's first true value; the test fails when it does not come in time, longer on a busy machine."""
    return waiting.wait_until(condition, what, seconds)
