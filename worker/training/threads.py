"""What has to be settled before torch is imported: how its threads wait for each other. Free of torch."""

import os

SPIN_COUNT = "10000"
"""Turns that a thread of GNU OpenMP waits actively for the next piece of work, about 30 microseconds.

Its default is 300,000. On an idle machine both are as fast. When other programs want the cores too, the default burns
its share of them waiting for a thread that is not being run: a step of `baseline` at batch 16 then takes 98 ms, not 16.
"""


def limit_spinning() -> None:
    """Have torch's threads give up their core soon when they wait. Call it before the first import of torch."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
