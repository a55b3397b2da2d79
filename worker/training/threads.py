"""The threads that torch computes with: how they wait, and how many there were at which step. Free of torch."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

SPIN_COUNT = "100000"
"""Turns that a thread of GNU OpenMP waits actively for the next piece of work, about 300 microseconds.

Its default is 300,000. Alone, and beside an API that is asked fifty times a second, both are as fast, and 10,000 turns
2 to 5% slower: a thread that has gone to sleep takes long to wake, above all on a virtual machine. When several
programs want every core, each turn is taken from one of them; then a run goes on with one thread, which never waits
(see crew.py).
"""


def limit_spinning() -> None:
    """Have torch's threads give up their core soon when they wait. Call it before the first import of torch.

    NumPy's matrices are small here: its library starts no threads of its own.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class Place(NamedTuple):
    """A point of a run. Places of one run can be compared."""

    times_lowered: int
    """How often a divergence has lowered the rate and led back to an earlier step, which is then trained again."""
    epoch: int
    """From 1."""
    step: int
    """Steps of the epoch that are done."""


START = Place(0, 1, 0)


@dataclass(frozen=True)
class ThreadHistory:
    """How many threads computed each step of a run: the number decides the last bits of every sum."""

    changes: tuple[tuple[Place, int], ...] = ()
    """In order: from this place on, so many threads."""

    def at(self, place: Place) -> int | None:
        """The threads at a place; None before the first that is known."""
        return next((threads for start, threads in reversed(self.changes) if start <= place), None)

    def changed(self, place: Place, threads: int) -> "ThreadHistory":
        """The history with so many threads from a place on; what it had from there on is dropped."""
        before = tuple(change for change in self.changes if change[0] < place)
        if before and before[-1][1] == threads:
            return ThreadHistory(before)
        return ThreadHistory((*before, (place, threads)))

    def as_json(self) -> list[dict[str, int]]:
        """Plain data for checkpoints and for the record of a run."""
        return [{**place._asdict(), "threads": threads} for place, threads in self.changes]

    @classmethod
    def from_json(cls, changes: Iterable[dict[str, int]]) -> "ThreadHistory":
        """What `as_json` made."""
        return cls(
            tuple((Place(each["times_lowered"], each["epoch"], each["step"]), each["threads"]) for each in changes)
        )

    @classmethod
    def of_environment(cls, environment: dict[str, Any] | None) -> "ThreadHistory | None":
        """The history in the record of a run (`describe_environment`); None where it has none, as on a GPU."""
        if not environment or environment.get("device_type") != "cpu":
            return None
        if changes := environment.get("thread_changes"):
            return cls.from_json(changes)
        threads = environment.get("threads")  # a run of a version that never changed them
        return cls(((START, threads),)) if isinstance(threads, int) else None
