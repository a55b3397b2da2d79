"""Turns at the event loop: requests begin a few at a time, and nobody's crowd keeps others waiting.

A lane is whoever is to have a turn of their own: an address, in what the perimeter asks for.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

ENTRIES_PER_ROUND = 8
"""Requests that begin in one round of the event loop. Each costs a millisecond or two before it first waits."""
PLACES_A_LANE = 4
"""Requests of one lane that are worked on at once. More would not be done sooner: they share the cores."""

Waiting = deque["asyncio.Future[None]"]


class Turnstile:
    """Lets requests in a few a round of the event loop, so that a thousand at once do not make one round of seconds.

    Lanes take turns, each in its own order. It counts entries and not who is inside: a request that takes its time
    keeps nobody out.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, Waiting] = {}
        """Those in which somebody waits, the one whose turn is next first."""
        self._entered = 0

    async def enter(self, lane: str = "") -> None:
        """Wait for one's turn; no wait at all while few come."""
        loop = asyncio.get_running_loop()
        if self._lanes or self._entered >= ENTRIES_PER_ROUND:
            turn = loop.create_future()
            self._lanes.setdefault(lane, deque()).append(turn)
            await turn
            return
        if self._entered == 0:
            loop.call_soon(self._next_round, loop)
        self._entered += 1

    def _next_round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._entered = 0
        while self._lanes and self._entered < ENTRIES_PER_ROUND:
            lane = next(iter(self._lanes))
            waiting = self._lanes.pop(lane)
            self._entered += _admit_first(waiting)
            if waiting:
                self._lanes[lane] = waiting  # behind the others
        if self._entered:
            loop.call_soon(self._next_round, loop)


@dataclass(slots=True)
class _Lane:
    taken: int = 0
    waiting: Waiting = field(default_factory=deque)


class Shares:
    """Bounds how many requests of a lane are worked on at once; its further ones wait, in their order."""

    def __init__(self, places: int = PLACES_A_LANE) -> None:
        self._places = places
        self._lanes: dict[str, _Lane] = {}

    async def enter(self, name: str) -> None:
        """Take a place, once there is one; `leave` gives it back."""
        lane = self._lanes.setdefault(name, _Lane())
        if lane.taken < self._places:
            lane.taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        lane.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had been given the place
                self.leave(name)
            raise

    def leave(self, name: str) -> None:
        """Give a place back: to the request of this lane that has waited longest, if any does."""
        lane = self._lanes[name]
        if _admit_first(lane.waiting):
            return
        lane.taken -= 1
        if lane.taken == 0:
            del self._lanes[name]


def _admit_first(waiting: Waiting) -> bool:
    """Admit the first that still waits, since some may have gone; False if none does."""
    while waiting:
        if not (turn := waiting.popleft()).done():
            turn.set_result(None)
            return True
    return False
