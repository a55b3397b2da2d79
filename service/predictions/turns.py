"""Whose work is done next: small before large, and nobody's before another's who has had less.

Predictions are worked on in pieces (a large picture, or a few small ones). Each piece waits here for a place. Of those
that wait, the next is one of the caller who has been given the least lately, and of those the cheapest; so a request
of thirty large pictures delays another caller's small one by one piece at most. Start-time fair queuing, with the
pieces' costs as service times: Goyal, Vin and Cheng, SIGCOMM 1996.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from models.errors import Unavailable


@dataclass(eq=False, slots=True)
class _Waiting:
    caller: str
    cost: int
    large: bool
    turn: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Turns:
    """A bounded number of places to work in, given fairly. To be used in one event loop.

    `places` pieces are worked on at once, `large_places` of them large. At most `max_requests` requests are inside,
    a caller's `max_share` of them.
    """

    def __init__(self, *, places: int, large_places: int, max_requests: int, max_share: int) -> None:
        self._free = places
        self._free_for_large = large_places
        self._max_requests = max_requests
        self._max_share = max_share
        self._requests: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self._given: dict[str, int] = {}
        """What each caller inside was given, in the unit of costs; callers who come begin with the least of these."""

    @asynccontextmanager
    async def request(self, caller: str) -> AsyncIterator[None]:
        """Be inside with one request. Raises Unavailable when too many are, of all callers or of this one."""
        if self._requests.total() >= self._max_requests or self._requests[caller] >= self._max_share:
            whose = "of yours " if self._requests[caller] >= self._max_share else ""
            raise Unavailable(
                f"{self._requests[caller] if whose else self._requests.total()} requests for predictions {whose}"
                "are being worked on or waiting already",
                fix="wait for their answers, then send it again",
                retry_after_seconds=1,
            )
        if caller not in self._given:
            self._given[caller] = min(self._given.values(), default=0)
        self._requests[caller] += 1
        try:
            yield
        finally:
            self._requests[caller] -= 1
            if not self._requests[caller]:
                del self._requests[caller], self._given[caller]

    @asynccontextmanager
    async def turn(self, caller: str, cost: int, *, large: bool = False) -> AsyncIterator[None]:
        """Wait for a place, and hold it. The caller has to be inside with a request."""
        piece = _Waiting(caller, cost, large)
        self._waiting.append(piece)
        self._give()
        try:
            await piece.turn
        except asyncio.CancelledError:
            if piece in self._waiting:
                self._waiting.remove(piece)
            else:
                self._take_back(piece)
            raise
        try:
            yield
        finally:
            self._take_back(piece)

    def _give(self) -> None:
        """Hand out the free places."""
        while self._free:
            ready = [
                piece
                for piece in self._waiting
                if not piece.turn.cancelled() and (self._free_for_large or not piece.large)
            ]
            if not ready:
                return
            piece = min(ready, key=lambda one: (self._given[one.caller], one.cost))
            self._waiting.remove(piece)
            self._free -= 1
            self._free_for_large -= piece.large
            self._given[piece.caller] += piece.cost
            piece.turn.set_result(None)

    def _take_back(self, piece: _Waiting) -> None:
        self._free += 1
        self._free_for_large += piece.large
        self._give()
