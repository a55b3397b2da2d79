"""What the machine could do: images a second that all cores decode and predict, a process each, without HTTP."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks.serving_networks import CASES, described, pictures, preprocessing_of, weights_of
from models.cores import usable_cores
from models.data.decoding import decode_image, open_image
from models.networks.export import export_described
from service.predictions.session import compute_logits, start_session

_ready: dict[str, Any] = {}
"""In each process: session, preprocessing and image of each case."""


class Ceiling:
    """Processes that decode and predict when they are told to."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def per_second(self, case: str, seconds: float) -> float:
        """Images a second of all cores together."""
        cores = usable_cores()
        return sum(self._pool.map(_count, [case] * cores, [seconds] * cores)) / seconds


@contextmanager
def ceiling() -> Iterator[Ceiling]:
    """One process a core, ended with the block."""
    sessions = {case: (export_described(described(case)), weights_of(case)) for case in CASES}
    with ProcessPoolExecutor(
        usable_cores(), mp_context=multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(sessions,)
    ) as pool:
        yield Ceiling(pool)


def _prepare(sessions: dict[str, tuple[bytes, bytes]]) -> None:
    images = pictures()
    for case, (graph, weights) in sessions.items():
        _ready[case] = (start_session(graph, weights), preprocessing_of(case), images[CASES[case][1]])


def _count(case: str, seconds: float) -> int:
    session, wanted, picture = _ready[case]
    until, count = time.perf_counter() + seconds, 0
    while True:
        compute_logits(session, [decode_image(open_image(picture), wanted)])
        if time.perf_counter() > until:
            return count  # answers are counted in the same way: those that came within the time
        count += 1
