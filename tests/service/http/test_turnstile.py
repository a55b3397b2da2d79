"""A crowd is let in a few at a time, so that the event loop gets round to everybody else."""

import asyncio

from service.http.perimeter import ENTRIES_PER_ROUND, Turnstile


async def rounds_until(task: "asyncio.Task[None]") -> int:
    """Rounds of the event loop until a task is done."""
    count = 0
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    return count


def test_a_crowd_enters_in_order_and_a_few_a_round() -> None:
    async def crowd() -> None:
        turnstile, inside = Turnstile(), []

        async def visit(number: int) -> None:
            await turnstile.enter()
            inside.append(number)

        tasks = [asyncio.create_task(visit(number)) for number in range(100)]
        before = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            assert len(inside) - before <= ENTRIES_PER_ROUND
            before = len(inside)
        assert inside == list(range(100))

    asyncio.run(crowd())


def test_one_alone_does_not_wait() -> None:
    async def alone() -> None:
        turnstile = Turnstile()
        for _ in range(3):
            assert await rounds_until(asyncio.create_task(turnstile.enter())) == 1

    asyncio.run(alone())


def test_whoever_leaves_the_line_holds_up_nobody() -> None:
    async def impatient() -> None:
        turnstile = Turnstile()
        tasks = [asyncio.create_task(turnstile.enter()) for _ in range(50)]
        await asyncio.sleep(0)
        for task in tasks[20:40]:
            task.cancel()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert sum(one is None for one in done) == 30

    asyncio.run(impatient())
