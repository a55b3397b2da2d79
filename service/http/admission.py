"""Admission control: round-robin scheduling of requests between clients, and a limit on each client's concurrency.

A client is named by a string: the perimeter uses its network address.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

STARTS_PER_ITERATION = 1
"""Requests started in one iteration of the event loop. Each costs a millisecond or two before its first await.

uvloop accepts one connection in an iteration, so with eight starts the last of 64 new connections
waited half a second, while those accepted before sent one small request after the other."""
MAX_CONCURRENT = 4
"""Requests of one client processed concurrently. More would not finish sooner: they share the cores."""

Waiting = deque["asyncio.Future[None]"]


class RoundRobin:
    """Starts a few requests per iteration of the event loop, so that a thousand at once do not block it for seconds.

    Clients are served round robin, each client's requests in their order of arrival. It limits the rate of starts, not
    concurrency: a slow request does not delay others.
    """

    def __init__(self) -> None:
        self._clients: dict[str, Waiting] = {}
        """Clients with waiting requests, in round-robin order."""
        self._entered = 0

    async def wait_for_turn(self, client: str = "") -> None:
        """Wait until this request may start; returns at once under low load."""
        loop = asyncio.get_running_loop()
        if self._clients or self._entered >= STARTS_PER_ITERATION:
            turn = loop.create_future()
            self._clients.setdefault(client, deque()).append(turn)
            await turn
            return
        if self._entered == 0:
            loop.call_soon(self._next_round, loop)
        self._entered += 1

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._entered = 0
        while self._clients and self._entered < STARTS_PER_ITERATION:
            client = next(iter(self._clients))
            waiting = self._clients.pop(client)
            self._entered += _admit_first(waiting)
            if waiting:
                self._clients[client] = waiting  # to the end of the order
        if self._entered:
            loop.call_soon(self._next_round, loop)


@dataclass(slots=True)
class _Client:
    taken: int = 0
    waiting: Waiting = field(default_factory=deque)


class ConcurrencyLimiter:
    """Limits how many requests of one client are processed concurrently; further ones wait in order of arrival."""

    def __init__(self, places: int = MAX_CONCURRENT) -> None:
        self._places = places
        self._clients: dict[str, _Client] = {}

    async def acquire(self, name: str) -> None:
        """Wait for a free slot and take it; `release` frees it."""
        client = self._clients.setdefault(name, _Client())
        if client.taken < self._places:
            client.taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        client.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the slot had been assigned already
                self.release(name)
            raise

    def release(self, name: str) -> None:
        """Free a slot, or pass it to the client's longest-waiting request."""
        client = self._clients[name]
        if _admit_first(client.waiting):
            return
        client.taken -= 1
        if client.taken == 0:
            del self._clients[name]


def _admit_first(waiting: Waiting) -> bool:
    """Wake the first waiting request that was not cancelled; False if there is none."""
    while waiting:
        if not (turn := waiting.popleft()).done():
            turn.set_result(None)
            return True
    return False
