"""What has to be settled before torch is imported: how its threads wait for each other. Free of torch."""

import os

SPIN_COUNT = "100000"
"""Turns that a thread of GNU OpenMP waits actively for the next piece of work, about 300 microseconds.

Its default is 300,000. Alone, and beside an API that is asked fifty times a second, both are as fast, and 10,000 turns
2 to 5% slower: a thread that has gone to sleep takes long to wake, above all on a virtual machine. When several
programs want every core, each turn is taken from one of them: with two beside it on two cores a step takes 44 ms,
and 71 ms with the default; with six, 0.4 s, and 0.13 s with 10,000 turns, which a crowded machine sets in its
environment.
"""


def limit_spinning() -> None:
    """Have torch's threads give up their core soon when they wait. Call it before the first import of torch."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
