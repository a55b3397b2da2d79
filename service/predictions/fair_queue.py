"""Fair scheduling of predictions between callers, small pieces before large ones.

Predictions are processed in pieces (a large image, or a few small ones), each of which waits for a place. The next one
is of the caller that has received the least service, and the cheapest of that caller's; so a request of thirty large
images delays another caller's small one by one piece at most. Start-time fair queuing, with the
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
    admitted: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairQueue:
    """Fair queue for a bounded number of places. To be used in one event loop.

    At most `places` pieces are processed at once, `large_places` of them large. At most `max_requests` requests are
    admitted, `max_share` of one caller.
    """

    def __init__(self, *, places: int, large_places: int, max_requests: int, max_share: int) -> None:
        self._free = places
        self._free_for_large = large_places
        self._max_requests = max_requests
        self._max_share = max_share
        self._requests: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self._service: dict[str, int] = {}
        """Service received by each active caller, in units of cost; a new caller starts with the least of these."""

    @asynccontextmanager
    async def request(self, caller: str) -> AsyncIterator[None]:
        """Admit one request for the context. Raises Unavailable at the limit of all callers or of this one."""
        if self._requests.total() >= self._max_requests or self._requests[caller] >= self._max_share:
            whose = "of yours " if self._requests[caller] >= self._max_share else ""
            raise Unavailable(
                f"{self._requests[caller] if whose else self._requests.total()} requests for predictions {whose}"
                "are running or waiting already",
                fix="wait for their answers, then send it again",
                retry_after_seconds=1,
            )
        if caller not in self._service:
            self._service[caller] = min(self._service.values(), default=0)
        self._requests[caller] += 1
        try:
            yield
        finally:
            self._requests[caller] -= 1
            if not self._requests[caller]:
                del self._requests[caller], self._service[caller]

    @asynccontextmanager
    async def place(self, caller: str, cost: int, *, large: bool = False) -> AsyncIterator[None]:
        """Acquire a place for the context. The caller must have a request admitted."""
        piece = _Waiting(caller, cost, large)
        self._waiting.append(piece)
        self._assign()
        try:
            await piece.admitted
        except asyncio.CancelledError:
            if piece in self._waiting:
                self._waiting.remove(piece)
            else:
                self._release(piece)
            raise
        try:
            yield
        finally:
            self._release(piece)

    def _assign(self) -> None:
        """Assign the free places to waiting pieces."""
        while self._free:
            ready = [
                piece
                for piece in self._waiting
                if not piece.admitted.cancelled() and (self._free_for_large or not piece.large)
            ]
            if not ready:
                return
            piece = min(ready, key=lambda one: (self._service[one.caller], one.cost))
            self._waiting.remove(piece)
            self._free -= 1
            self._free_for_large -= piece.large
            self._service[piece.caller] += piece.cost
            piece.admitted.set_result(None)

    def _release(self, piece: _Waiting) -> None:
        self._free += 1
        self._free_for_large += piece.large
        self._assign()
