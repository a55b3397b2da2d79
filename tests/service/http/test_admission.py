"""A crowd is let in a few at a time, so that the event loop gets round to everybody else."""

import asyncio

import pytest

from service.http.turnstile import ENTRIES_PER_ROUND, Shares, Turnstile


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


def test_lanes_take_turns_whoever_came_in_a_crowd() -> None:
    async def crowd() -> None:
        turnstile, inside = Turnstile(), []

        async def visit(lane: str, number: int) -> None:
            await turnstile.enter(lane)
            inside.append((lane, number))

        tasks = [asyncio.create_task(visit("crowd", number)) for number in range(500)]
        tasks += [asyncio.create_task(visit("other", number)) for number in range(3)]
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert [number for lane, number in inside if lane == "crowd"] == list(range(500))
        assert max(place for place, (lane, _) in enumerate(inside) if lane == "other") < 2 * ENTRIES_PER_ROUND

    asyncio.run(crowd())


def test_so_many_of_a_lane_are_worked_on_and_the_next_in_their_order() -> None:
    async def work() -> None:
        shares, begun = Shares(places=2), []

        async def visit(lane: str, number: int) -> None:
            await shares.enter(lane)
            begun.append((lane, number))

        tasks = [asyncio.create_task(visit("a", number)) for number in range(6)]
        tasks.append(asyncio.create_task(visit("b", 0)))
        await asyncio.sleep(0)
        assert begun == [("a", 0), ("a", 1), ("b", 0)]
        tasks[2].cancel()
        for _ in range(2):
            shares.leave("a")
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        assert begun[3:] == [("a", 3), ("a", 4)]
        for _ in range(3):
            shares.leave("a")
        shares.leave("b")
        await asyncio.gather(*tasks, return_exceptions=True)
        assert begun[-1] == ("a", 5)
        with pytest.raises(KeyError):
            shares.leave("a")  # nobody of it is left

    asyncio.run(work())


def test_a_place_that_was_given_to_somebody_who_left_goes_to_the_next() -> None:
    async def work() -> None:
        shares = Shares(places=1)
        await shares.enter("a")
        tasks = [asyncio.create_task(shares.enter("a")) for _ in range(2)]
        await asyncio.sleep(0)
        shares.leave("a")
        tasks[0].cancel()  # it has the place, and does not know of it yet
        await asyncio.wait_for(tasks[1], 5)

    asyncio.run(work())
