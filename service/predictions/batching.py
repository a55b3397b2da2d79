"""Micro-batching: single requests wait a moment for company and are answered together.

One thread does the work, so that predictions take one core from training and no more. What waits is bounded: when the
queue is full, the next request is told so at once instead of waiting for a minute.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from models.errors import EpochalError, Unavailable

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Request(Generic[Key, Item, Result]):
    key: Key
    items: Sequence[Item]
    answer: "Future[list[Result]]" = field(default_factory=Future)


class Batcher(Generic[Key, Item, Result]):
    """Collects items of the same key from many threads and gives them to `run` together.

    `run(key, items)` gives one result an item, in order; it is called in one thread of the batcher's own. A batch
    waits `linger_seconds` from its first request on, or until `max_batch` items are there. Requests are answered
    whole, the oldest first; at most `capacity` items wait.
    """

    def __init__(
        self,
        run: Callable[[Key, list[Item]], list[Result]],
        *,
        max_batch: int = 32,
        linger_seconds: float = 0.005,
        capacity: int = 512,
        name: str = "batcher",
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._linger_seconds = linger_seconds
        self._capacity = capacity
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[_Request[Key, Item, Result]] = deque()
        self._num_waiting = 0
        self._seconds_per_item = 0.01
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, key: Key, items: Sequence[Item], timeout_seconds: float = 120.0) -> list[Result]:
        """Have the items worked on, and wait for their results.

        Raises Unavailable with `retry_after_seconds` when the queue is full, and whatever `run` raises. A request
        larger than the whole queue is taken when nothing else waits.
        """
        if not items:
            return []
        request: _Request[Key, Item, Result] = _Request(key, items)
        with self._changed:
            self._check_room(len(items))
            self._waiting.append(request)
            self._num_waiting += len(items)
            self._start()
            self._changed.notify_all()
        try:
            return request.answer.result(timeout_seconds)
        except TimeoutError:
            self._withdraw(request)
            raise Unavailable(
                f"no prediction was made within {timeout_seconds:g} s", fix="try again later", retry_after_seconds=10
            ) from None

    @property
    def num_waiting(self) -> int:
        """Items that wait to be worked on."""
        return self._num_waiting

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Stop the thread; whatever still waits is told so."""
        with self._changed:
            self._closed = True
            waiting, self._waiting, self._num_waiting = list(self._waiting), deque(), 0
            thread = self._thread
            self._changed.notify_all()
        for request in waiting:
            request.answer.set_exception(_closing())
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)

    def _check_room(self, count: int) -> None:
        if self._closed:
            raise _closing()
        if self._num_waiting and self._num_waiting + count > self._capacity:
            wait = self._num_waiting * self._seconds_per_item
            raise Unavailable(
                f"{self._num_waiting} images already wait to be predicted, and {self._capacity} may",
                fix="try again in a moment",
                retry_after_seconds=max(1, min(60, round(wait))),
            )

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def _withdraw(self, request: _Request[Key, Item, Result]) -> None:
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)
                self._num_waiting -= len(request.items)

    def _work(self) -> None:
        while batch := self._next_batch():
            items = [item for request in batch for item in request.items]
            started = time.monotonic()
            try:
                results = self._run(batch[0].key, items)
            except Exception as error:  # the thread must live on, and the callers must hear of it
                if not isinstance(error, EpochalError):
                    logger.exception("a batch of %d failed", len(items))
                for request in batch:
                    request.answer.set_exception(error)
                continue
            spent = (time.monotonic() - started) / len(items)
            self._seconds_per_item += 0.2 * (spent - self._seconds_per_item)
            place = 0
            for request in batch:
                request.answer.set_result(results[place : place + len(request.items)])
                place += len(request.items)

    def _next_batch(self) -> list[_Request[Key, Item, Result]]:
        """The requests to answer next; empty when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            self._changed.wait_for(lambda: self._num_waiting >= self._max_batch or self._closed, self._linger_seconds)
            batch: list[_Request[Key, Item, Result]] = []
            count = 0
            for request in list(self._waiting):
                fits = not batch or count + len(request.items) <= self._max_batch
                if (not batch or request.key == batch[0].key) and fits:
                    batch.append(request)
                    count += len(request.items)
                    self._waiting.remove(request)
            self._num_waiting -= count
            return batch


def _closing() -> Unavailable:
    return Unavailable("the lab is stopping", fix="try again when it is back", retry_after_seconds=5)
