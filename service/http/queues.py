"""Bounded queues for slow resources: database writes, drawing, predictions, pre-flights, the broker."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from models.errors import TooManyRequests, Unavailable

Answer = TypeVar("Answer")


class BoundedQueue:
    """Lets at most `places` requests use a resource at once; further ones wait, without a thread, or are refused.

    `run` uses threads beyond the shared pool's, so blocked work here takes no thread from other requests.
    """

    def __init__(
        self,
        name: str,
        *,
        places: int,
        max_waiting: int | None = None,
        share: int | None = None,
        retry_after_seconds: float = 1.0,
    ) -> None:
        self.name = name
        self._limiter = anyio.CapacityLimiter(places)
        self._max_waiting = max_waiting
        self._share = share
        self._inside: Counter[str] = Counter()
        self._retry_after_seconds = retry_after_seconds

    @asynccontextmanager
    async def place(self, caller: str | None = None) -> AsyncIterator[None]:
        """Acquire a place for the duration of the context. `caller` is a key's name; None is not limited by `share`.

        Raises Unavailable when `max_waiting` requests wait already, TooManyRequests when the caller has `share` inside.
        """
        self._check_share(caller)
        self._check_room()
        holder = object()
        if caller is not None:
            self._inside[caller] += 1
        try:
            await self._limiter.acquire_on_behalf_of(holder)
            try:
                yield
            finally:
                self._limiter.release_on_behalf_of(holder)
        finally:
            if caller is not None:
                self._inside -= Counter({caller: 1})  # drops a count of zero

    async def run(self, work: Callable[..., Answer], *args: Any) -> Answer:
        """Acquire a place and run blocking work in a thread. Raises Unavailable like `place`."""
        self._check_room()
        return await to_thread.run_sync(work, *args, limiter=self._limiter)

    def _check_share(self, caller: str | None) -> None:
        if caller is not None and self._share is not None and self._inside[caller] >= self._share:
            raise TooManyRequests(
                f"'{caller}' has {self._inside[caller]} {self.name} waiting or running, of {self._share} allowed",
                fix="wait for their answers, then send it again",
                retry_after_seconds=self._retry_after_seconds,
            )

    def _check_room(self) -> None:
        found = self._limiter.statistics()
        if self._max_waiting is None or found.borrowed_tokens < found.total_tokens:
            return
        if found.tasks_waiting >= self._max_waiting:
            raise Unavailable(
                f"{found.borrowed_tokens + found.tasks_waiting} {self.name} are running or waiting already",
                fix="wait and send it again",
                retry_after_seconds=self._retry_after_seconds,
            )
