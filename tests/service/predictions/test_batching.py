"""The micro-batching queue: together, in order, bounded, and never lost."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.errors import Conflict, Unavailable
from service.predictions.batching import Batcher
from tests.processes import wait_until


class Recorder:
    """Doubles numbers, and remembers what it was given together."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.entered = threading.Event()

    def run(self, key: str, items: list[int]) -> list[int]:
        """The batcher's work."""
        self.entered.set()
        assert self.may_go.wait(30)
        self.batches.append((key, items))
        return [2 * item for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def blocked(recorder: Recorder, batcher: Batcher[str, int, int], pool: ThreadPoolExecutor) -> None:
    """Have the batcher hang in a first batch, so that what comes after has to wait."""
    recorder.may_go.clear()
    pool.submit(batcher.submit, "first", [0])
    assert recorder.entered.wait(30)


def test_a_thousand_requests_at_once_get_their_own_answers_in_few_batches(recorder: Recorder) -> None:
    batcher = Batcher(recorder.run, capacity=2000)
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda n: batcher.submit("a", [n, n + 1]), range(1000)))
    batcher.close()
    assert answers == [[2 * n, 2 * n + 2] for n in range(1000)]
    assert len(recorder.batches) < 500
    assert max(len(items) for _, items in recorder.batches) <= 32


def test_requests_of_one_key_go_together_and_others_wait_their_turn(recorder: Recorder) -> None:
    batcher = Batcher(recorder.run, max_batch=4)
    with ThreadPoolExecutor(8) as pool:
        blocked(recorder, batcher, pool)
        waiting = []
        for number, key in enumerate("abaab"):
            waiting.append(pool.submit(batcher.submit, key, [number]))
            wait_until(lambda number=number: batcher.num_waiting == number + 1)
        recorder.may_go.set()
        assert [answer.result(30) for answer in waiting] == [[0], [2], [4], [6], [8]]
    batcher.close()
    assert recorder.batches[1:] == [("a", [0, 2, 3]), ("b", [1, 4])]


def test_a_full_queue_says_when_to_come_back(recorder: Recorder) -> None:
    batcher = Batcher(recorder.run, capacity=4)
    with ThreadPoolExecutor(8) as pool:
        blocked(recorder, batcher, pool)
        waiting = pool.submit(batcher.submit, "a", [1, 2, 3])
        wait_until(lambda: batcher.num_waiting == 3)
        with pytest.raises(Unavailable, match="3 images already wait") as caught:
            batcher.submit("a", [4, 5])
        assert caught.value.extra["retry_after_seconds"] >= 1
        recorder.may_go.set()
        assert waiting.result(30) == [2, 4, 6]
        assert batcher.submit("a", list(range(100))) == [2 * n for n in range(100)]
    batcher.close()


def test_an_error_reaches_every_caller_and_the_next_batch_works() -> None:
    def run(key: str, items: list[int]) -> list[int]:
        if key == "bad":
            raise Conflict("no weights")
        return items

    batcher: Batcher[str, int, int] = Batcher(run)
    with pytest.raises(Conflict, match="no weights"):
        batcher.submit("bad", [1])
    assert batcher.submit("good", [1]) == [1]
    batcher.close()


def test_closing_tells_those_who_wait_and_those_who_come_later(recorder: Recorder) -> None:
    batcher = Batcher(recorder.run)
    with ThreadPoolExecutor(4) as pool:
        blocked(recorder, batcher, pool)
        waiting = pool.submit(batcher.submit, "a", [1])
        wait_until(lambda: batcher.num_waiting == 1)
        closing = pool.submit(batcher.close)
        with pytest.raises(Unavailable, match="stopping"):
            waiting.result(30)
        recorder.may_go.set()
        closing.result(30)
    with pytest.raises(Unavailable, match="stopping"):
        batcher.submit("a", [1])


def test_who_has_waited_too_long_is_let_go_and_not_worked_for(recorder: Recorder) -> None:
    batcher = Batcher(recorder.run)
    with ThreadPoolExecutor(4) as pool:
        blocked(recorder, batcher, pool)
        with pytest.raises(Unavailable, match="no prediction was made"):
            batcher.submit("a", [7], timeout_seconds=0.01)
        assert batcher.num_waiting == 0
        recorder.may_go.set()
        assert batcher.submit("a", [8]) == [16]
    batcher.close()
    assert ("a", [7]) not in recorder.batches


def test_nothing_asked_is_nothing_done(recorder: Recorder) -> None:
    assert Batcher(recorder.run).submit("a", []) == []
    assert recorder.batches == []
