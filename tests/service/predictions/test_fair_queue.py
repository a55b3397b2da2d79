"""Fair scheduling: the caller with the least service first, cheap pieces first; cancelled ones free their place."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from models.errors import Unavailable
from service.predictions.fair_queue import FairQueue


def fair_queue(**changes: int) -> FairQueue:
    return FairQueue(**{"places": 1, "large_places": 1, "max_requests": 8, "max_share": 6, **changes})


class Work:
    """Pieces of work that note when they begin and end when told to."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, name: str, cost: int = 1, *, large: bool = False) -> None:
        """A piece of the caller that its name begins with."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._piece(name, cost, large))
        await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await self.tasks[name]
            await settle()

    async def _piece(self, name: str, cost: int, large: bool) -> None:
        async with self.queue.request(name[0]), self.queue.place(name[0], cost, large=large):
            self.begun.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def in_loop(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_caller_who_has_had_less_comes_first() -> None:
    async def scenario() -> None:
        work = Work(fair_queue())
        await work.start("a1", 100)
        await work.start("a2", 100)
        await work.start("a3", 100)
        await work.start("b1", 50)
        await work.end("a1")
        assert work.begun == ["a1", "b1"]
        await work.end("b1", "a2", "a3")
        assert work.begun == ["a1", "b1", "a2", "a3"]

    in_loop(scenario())


def test_of_one_caller_the_cheapest_piece_comes_first() -> None:
    async def scenario() -> None:
        work = Work(fair_queue())
        await work.start("a1")
        await work.start("a2", 90)
        await work.start("a3", 10)
        await work.end("a1", "a3", "a2")
        assert work.begun == ["a1", "a3", "a2"]

    in_loop(scenario())


def test_large_pieces_leave_places_for_small_ones() -> None:
    async def scenario() -> None:
        work = Work(fair_queue(places=2))
        await work.start("a1", 100, large=True)
        await work.start("a2", 100, large=True)
        await work.start("b1", 1)
        assert work.begun == ["a1", "b1"]
        await work.end("b1")
        assert work.begun == ["a1", "b1"]
        await work.end("a1", "a2")
        assert work.begun == ["a1", "b1", "a2"]

    in_loop(scenario())


def test_whoever_comes_anew_does_not_make_up_for_the_time_before() -> None:
    async def scenario() -> None:
        work = Work(fair_queue())
        await work.start("a1", 1000)
        await work.start("b1", 10)  # b begins where a is, as if it had had 1000 too
        await work.start("a2", 20)
        await work.end("a1")
        await work.start("b2", 5)
        await work.end("b1", "a2", "b2")
        assert work.begun == ["a1", "b1", "a2", "b2"]

    in_loop(scenario())


def test_a_cancelled_piece_gives_its_place_to_the_next() -> None:
    async def scenario() -> None:
        work = Work(fair_queue())
        for name in ("a1", "a2", "a3"):
            await work.start(name)
        work.tasks["a2"].cancel()
        await work.end("a1")
        assert work.begun == ["a1", "a3"]
        work.tasks["a3"].cancel()
        await work.start("a4")
        assert work.begun == ["a1", "a3", "a4"]
        await work.end("a4")

    in_loop(scenario())


def test_a_piece_that_is_cancelled_as_its_turn_comes_gives_it_back() -> None:
    async def scenario() -> None:
        work = Work(fair_queue())
        for name in ("a1", "a2", "a3"):
            await work.start(name)
        work._ends["a1"].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work.tasks["a2"].cancel()
        await settle()
        assert "a3" in work.begun
        await work.end("a3")

    in_loop(scenario())


def test_requests_are_bounded_for_all_and_for_each() -> None:
    async def scenario() -> None:
        work = Work(fair_queue())
        for number in range(6):
            await work.start(f"a{number}")
        await work.start("a6")
        with pytest.raises(Unavailable, match="6 requests for predictions of yours are"):
            await work.tasks["a6"]
        await work.start("b0")
        await work.start("c0")
        await work.start("d0")
        with pytest.raises(Unavailable, match="8 requests for predictions are"):
            await work.tasks["d0"]
        for name in (*(f"a{number}" for number in range(6)), "b0", "c0"):
            work.tasks[name].cancel()
        await settle()
        await work.start("d1")
        assert work.begun[-1] == "d1"
        await work.end("d1")

    in_loop(scenario())
