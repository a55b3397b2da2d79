"""Admission control: requests start a few per iteration of the event loop, round robin between clients."""

import asyncio
from contextlib import ExitStack

import pytest
import uvloop
from starlette.types import Message, Receive, Scope, Send

from models.settings import Settings
from service.app import create_app
from service.http.admission import STARTS_PER_ITERATION, ConcurrencyLimiter, RoundRobin
from tests.service.lab_of_one import LiveServer


async def rounds_until(task: "asyncio.Task[None]") -> int:
    """Rounds of the event loop until a task is done."""
    count = 0
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    return count


def test_many_requests_start_in_order_and_a_few_per_iteration() -> None:
    async def crowd() -> None:
        round_robin, inside = RoundRobin(), []

        async def visit(number: int) -> None:
            await round_robin.wait_for_turn()
            inside.append(number)

        tasks = [asyncio.create_task(visit(number)) for number in range(100)]
        before = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            assert len(inside) - before <= STARTS_PER_ITERATION
            before = len(inside)
        assert inside == list(range(100))

    asyncio.run(crowd())


def test_a_single_request_does_not_wait() -> None:
    async def alone() -> None:
        round_robin = RoundRobin()
        for _ in range(3):
            assert await rounds_until(asyncio.create_task(round_robin.wait_for_turn())) == 1

    asyncio.run(alone())


def test_cancelled_requests_do_not_delay_others() -> None:
    async def impatient() -> None:
        round_robin = RoundRobin()
        tasks = [asyncio.create_task(round_robin.wait_for_turn()) for _ in range(50)]
        await asyncio.sleep(0)
        for task in tasks[20:40]:
            task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert sum(one is None for one in done) == 30

    asyncio.run(impatient())


def test_clients_take_turns_however_many_requests_each_has() -> None:
    async def crowd() -> None:
        round_robin, inside = RoundRobin(), []

        async def visit(client: str, number: int) -> None:
            await round_robin.wait_for_turn(client)
            inside.append((client, number))

        tasks = [asyncio.create_task(visit("crowd", number)) for number in range(500)]
        tasks += [asyncio.create_task(visit("other", number)) for number in range(3)]
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert [number for client, number in inside if client == "crowd"] == list(range(500))
        last = max(place for place, (client, _) in enumerate(inside) if client == "other")
        assert last < 2 * (3 + STARTS_PER_ITERATION), "three each, and what began together before them"

    asyncio.run(crowd())


def test_a_new_connection_does_not_wait_while_others_send_one_request_after_the_other(settings: Settings) -> None:
    num_connections, requests_each = 48, 16
    app, answered = create_app(settings), list[int]()

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append(scope["client"][1])
            await send(message)

        await app(scope, receive, note)

    server = LiveServer(noted, run=uvloop.run)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(num_connections)]
        for connection in connections:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * requests_each)
        stack.enter_context(server)
        for connection in connections:
            received = b""
            while received.count(b"HTTP/1.1 200") < requests_each:
                received += connection.recv(65536)
    assert len(answered) == num_connections * requests_each
    assert max(answered.index(port) for port in set(answered)) < 3 * num_connections


def test_a_clients_concurrency_is_limited_and_its_waiting_requests_start_in_order() -> None:
    async def work() -> None:
        limiter, begun = ConcurrencyLimiter(places=2), []

        async def visit(client: str, number: int) -> None:
            await limiter.acquire(client)
            begun.append((client, number))

        tasks = [asyncio.create_task(visit("a", number)) for number in range(6)]
        tasks.append(asyncio.create_task(visit("b", 0)))
        await asyncio.sleep(0)
        assert begun == [("a", 0), ("a", 1), ("b", 0)]
        tasks[2].cancel()
        for _ in range(2):
            limiter.release("a")
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        assert begun[3:] == [("a", 3), ("a", 4)]
        for _ in range(3):
            limiter.release("a")
        limiter.release("b")
        await asyncio.gather(*tasks, return_exceptions=True)
        assert begun[-1] == ("a", 5)
        with pytest.raises(KeyError):
            limiter.release("a")  # it holds no slot

    asyncio.run(work())


def test_a_slot_assigned_to_a_cancelled_request_goes_to_the_next() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(places=1)
        await limiter.acquire("a")
        tasks = [asyncio.create_task(limiter.acquire("a")) for _ in range(2)]
        await asyncio.sleep(0)
        limiter.release("a")
        tasks[0].cancel()  # after the slot was assigned, before it resumes
        await asyncio.wait_for(tasks[1], 5)

    asyncio.run(work())
