"""Waiting for a condition, on a machine that may be busy with something else; whether a process lives."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


class Broken(AssertionError):
    """A guarantee did not hold."""


def patience(seconds: float) -> float:
    """Scale seconds of an idle machine to the present load of this one.

    A deadline is a promise about the lab, and not about who else wants the cores.
    """
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_until(condition: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """The condition's first true value; Broken when it does not come in time, which is longer on a busy machine."""
    began = time.monotonic()
    while not (value := condition()):
        if time.monotonic() - began > patience(seconds):
            raise Broken(f"waited {time.monotonic() - began:.0f} s in vain for {what}")
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
