"""Runs the parts of a check on all cores: a thread each, in which torch and NumPy compute with one thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from models.cores import thread_limit

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of `work` in the order of the items. An exception, also one of the consumer, ends the others.

    Threads are enough: torch and NumPy release Python's lock while they compute. They scale better than the threads
    that torch itself divides an operation among, and never spin while a training process needs their cores.
    """
    pool = ThreadPoolExecutor(thread_limit(), thread_name_prefix="check")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute with one thread, in this thread and in those that are started inside of the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
