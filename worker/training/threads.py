"""Torch's threads: how they wait for work, and the history of their number over a run. Free of torch."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from models.environment import Environment, ThreadChange

SPIN_COUNT = "100000"
"""Iterations for which a thread of GNU OpenMP spins while it waits for work, about 300 microseconds.

Its default is 300,000. Alone, and beside an API with fifty requests a second, both are equally fast, and 10,000 are
2 to 5% slower: a sleeping thread takes long to wake, above all on a virtual machine. When several
programs need every core, spinning takes time from the others; then a run continues with one thread, which never waits
(see thread_control.py).
"""


def limit_spinning() -> None:
    """Make torch's threads release their core soon when they wait. Call it before the first import of torch.

    NumPy's BLAS starts no threads, since its matrices are small here.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class Place(NamedTuple):
    """A position in a run (epoch, step). Places of one run can be compared."""

    times_lowered: int
    """How often a divergence has lowered the rate and led back to an earlier step, which is then trained again."""
    epoch: int
    """From 1."""
    step: int
    """Steps of the epoch that are done."""


START = Place(0, 1, 0)


@dataclass(frozen=True)
class ThreadHistory:
    """The number of threads at each step of a run, which decides the last bits of every sum."""

    changes: tuple[tuple[Place, int], ...] = ()
    """In order: from this place on, so many threads."""

    def at(self, place: Place) -> int | None:
        """The number of threads at a place; None before the first recorded one."""
        return next((threads for start, threads in reversed(self.changes) if start <= place), None)

    def changed(self, place: Place, threads: int) -> "ThreadHistory":
        """A copy with `threads` from a place on, which replaces all later entries."""
        before = tuple(change for change in self.changes if change[0] < place)
        if before and before[-1][1] == threads:
            return ThreadHistory(before)
        return ThreadHistory((*before, (place, threads)))

    def as_json(self) -> list[ThreadChange]:
        """Plain data for checkpoints and for the record of a run."""
        return [
            {"times_lowered": place.times_lowered, "epoch": place.epoch, "step": place.step, "threads": threads}
            for place, threads in self.changes
        ]

    @classmethod
    def from_json(cls, changes: Iterable[ThreadChange]) -> "ThreadHistory":
        """Read what `as_json` returned."""
        return cls(
            tuple((Place(each["times_lowered"], each["epoch"], each["step"]), each["threads"]) for each in changes)
        )

    @classmethod
    def of_environment(cls, environment: Environment | None) -> "ThreadHistory | None":
        """The history in the record of a run (`describe_environment`); None where it has none, as on a GPU."""
        if not environment or environment.get("device_type") != "cpu":
            return None
        if changes := environment.get("thread_changes"):
            return cls.from_json(changes)
        threads = environment.get("threads")  # a run of a version that never changed them
        return cls(((START, threads),)) if isinstance(threads, int) else None
