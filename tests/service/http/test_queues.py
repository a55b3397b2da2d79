"""Bounded queues: limits on concurrency, on waiting requests and per caller; places are always released."""

import threading
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.lowlevel import checkpoint

from models.errors import TooManyRequests, Unavailable
from service.http.queues import BoundedQueue


@pytest.mark.anyio
async def test_one_that_finds_no_place_waits_for_one() -> None:
    queue, done = BoundedQueue("drawings", places=1), []

    async def second() -> None:
        async with queue.place():
            done.append("second")

    async with anyio.create_task_group() as tasks, queue.place():
        tasks.start_soon(second)
        for _ in range(5):
            await checkpoint()
        assert done == []
    assert done == ["second"]


@pytest.mark.anyio
async def test_one_that_may_not_wait_is_refused_and_told_when_to_come_back() -> None:
    queue = BoundedQueue("pre-flights", places=2, max_waiting=0, retry_after_seconds=10)
    async with AsyncExitStack() as inside:
        for _ in range(2):
            await inside.enter_async_context(queue.place())
        with pytest.raises(Unavailable, match="2 pre-flights") as caught:
            async with queue.place():
                pass
        assert caught.value.extra["retry_after_seconds"] == 10
        with pytest.raises(Unavailable):
            await queue.run(lambda: None)
    assert await queue.run(lambda: "free again") == "free again"


@pytest.mark.anyio
async def test_a_caller_has_no_more_than_its_share_and_others_have_theirs() -> None:
    queue = BoundedQueue("pre-flights", places=4, share=1)
    async with queue.place("ada"):
        with pytest.raises(TooManyRequests, match="'ada' has 1 pre-flights"):
            async with queue.place("ada"):
                pass
        async with queue.place("bob"), queue.place(None), queue.place(None):
            pass
    async with queue.place("ada"):
        pass


@pytest.mark.anyio
async def test_a_place_comes_back_from_work_that_fails() -> None:
    queue = BoundedQueue("writes", places=1, max_waiting=0, share=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await queue.run(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            async with queue.place("ada"):
                raise ZeroDivisionError


@pytest.mark.anyio
async def test_work_that_hangs_in_one_queue_takes_no_thread_from_another() -> None:
    hanging, other = BoundedQueue("checks", places=60), BoundedQueue("key look-ups", places=1)
    ends = threading.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(hanging.run, ends.wait)
        assert await other.run(lambda: "answered") == "answered"
        ends.set()
