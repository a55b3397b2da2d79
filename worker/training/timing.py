"""Timers of a run: seconds of an epoch, and seconds of each phase."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds of the epoch so far, including earlier attempts."""

    before: float = 0.0
    started: float | None = None

    def start(self) -> None:
        """Start or continue the clock."""
        self.before, self.started = self.seconds(), time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far."""
        return self.before + (0.0 if self.started is None else time.perf_counter() - self.started)


class PhaseTimer:
    """Seconds of this attempt by phase: preparing, training, validating, saving, judging and so on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of this block to a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
