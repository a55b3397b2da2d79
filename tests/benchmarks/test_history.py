"""The history checker tells histories with a broken guarantee from correct ones."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.history.judge import judge

Entry = dict[str, Any]


def request(op: str, began: float, status: int = 200, *, ended: float | None = None, **members: Any) -> Entry:
    return {
        "kind": "request",
        "client": 1,
        "op": op,
        "began": began,
        "ended": began + 0.5 if ended is None else ended,
        "status": status,
        **members,
    }


def seen(status: str, attempts: int = 1, name: str = "one") -> Entry:
    return {"name": name, "tags": ["a"], "status": status, "attempts": attempts}


def run(attempt: int, started: float, ended: float | None, status: str = "completed") -> Entry:
    return {"attempt": attempt, "status": status, "worker": f"w{attempt}", "started": started, "ended": ended}


def snapshot(at: float, status: str, attempt: int, *epochs: tuple[int, int]) -> Entry:
    return {"kind": "snapshot", "at": at, "experiments": {"1": [status, attempt, [list(pair) for pair in epochs]]}}


def whole() -> list[Entry]:
    """A history in which everything went well: one experiment handed on, one cancelled and resumed, one deleted."""
    first = {
        "name": "one", "tags": ["a"], "status": "completed", "attempt": 2, "reproduces": None, "wanted": 3,
        "epochs": [[1, 1, 0.9], [2, 2, 0.8], [3, 2, 0.7]],
        "runs": [run(1, 10.0, 12.0, "lost"), run(2, 12.0, 20.0)],
    }  # fmt: skip
    second = {
        "name": "two", "tags": [], "status": "cancelled", "attempt": 1, "reproduces": None, "wanted": 3,
        "epochs": [[1, 1, 0.5]], "runs": [run(1, 11.0, 15.0, "cancelled")],
    }  # fmt: skip
    return [
        {"kind": "begin", "seed": 1},
        request("submit", 0, 0, id=None, name="one", tags=["a"], key="k"),
        request("submit", 1, 202, id=1, name="one", tags=["a"], key="k"),
        request("submit", 2, 202, id=1, name="one", tags=["a"], key="k"),
        request("misuse", 2, 422, name="one", key="k"),
        request("submit", 2, 202, id=2, name="two", tags=[], key=None),
        request("submit", 3, 202, id=3, name="three", tags=[], key=None),
        request("look", 4, 200, id=1, found=seen("running")),
        request("look", 5, 503, id=1),
        request("metrics", 5, 200, id=1, found={"epochs": [[1, 0.9], [2, 0.8]]}),
        snapshot(5, "running", 1, (1, 1), (2, 1)),
        snapshot(8, "running", 2, (1, 1), (2, 1)),
        snapshot(9, "running", 2, (1, 1), (2, 2)),
        request("cancel", 6, 200, id=3, found={**seen("cancelled"), "name": "three", "tags": []}),
        request("delete", 7, 204, id=3),
        request("look", 8, 404, id=3),
        request("cancel", 8, 200, id=2, found={**seen("cancelled"), "name": "two", "tags": []}),
        request("resume", 9, 202, id=2),
        request("look", 10, 200, id=2, found={**seen("queued"), "name": "two", "tags": []}),
        request("cancel", 11, 200, id=2, found={**seen("cancelled"), "name": "two", "tags": []}),
        request("look", 12, 200, id=1, found=seen("completed", 2)),
        request("list", 12, 200, found={"ids": [2, 1]}),
        {"kind": "final", "experiments": {"1": first, "2": second}, "listed": [2, 1]},
    ]


def test_a_history_in_which_all_was_kept_has_no_findings() -> None:
    assert judge(whole()) == []


def change(found: dict[str, Any]) -> Callable[[list[Entry]], None]:
    """Change what is stored of experiment 1 at the end."""
    return lambda history: history[-1]["experiments"]["1"].update(found)


def add(*entries: Entry) -> Callable[[list[Entry]], None]:
    """Put entries before the end."""

    def apply(history: list[Entry]) -> None:
        history[-1:-1] = list(entries)

    return apply


def forget(number: str) -> Callable[[list[Entry]], None]:
    def apply(history: list[Entry]) -> None:
        del history[-1]["experiments"][number]
        history[-1]["listed"].remove(int(number))

    return apply


def store_again(history: list[Entry]) -> None:
    history[-1]["experiments"]["4"] = history[-1]["experiments"]["1"]
    history[-1]["listed"].append(4)


def bring_back(history: list[Entry]) -> None:
    history[-1]["experiments"]["3"] = {**history[-1]["experiments"]["2"], "name": "three"}
    history[-1]["listed"].append(3)


EPOCHS = [[1, 1, 0.9], [2, 2, 0.8], [3, 2, 0.7]]
BROKEN: dict[str, tuple[Callable[[list[Entry]], None], str]] = {
    "an accepted one is missing": (forget("1"), "1 was accepted and is missing"),
    "one is never finished": (change({"status": "running"}), "still running at the end"),
    "one is not listed": (lambda history: history[-1]["listed"].remove(1), "the list at the end"),
    "one is listed twice": (lambda history: history[-1]["listed"].append(1), "twice"),
    "an answer of 500": (add(request("look", 12, 500, id=1)), "answered 500"),
    "a key made two": (add(request("submit", 12, 202, id=2, name="two", tags=[], key="k")), "made the experiments"),
    "a key was taken with another body": (add(request("misuse", 12, 202, key="k", name="one")), "another body"),
    "one request made two": (store_again, "asked for once"),
    "one that nobody asked for": (change({"name": "nobody's"}), "asked for by nobody"),
    "a deleted one is there": (bring_back, "3 was deleted and is there again"),
    "a deleted one is read": (add(request("look", 9, 200, id=3, found=seen("cancelled"))), "3 was deleted, and look"),
    "a deleted one is resumed": (add(request("resume", 9, 202, id=3)), "3 was deleted, and resume"),
    "a deleted one is listed": (add(request("list", 9, 200, found={"ids": [3, 1]})), "a list named it later"),
    "an accepted one is not found": (add(request("look", 3, 404, id=1)), "look was answered 404 later"),
    "an ended one goes on": (add(request("look", 14, 200, id=1, found=seen("running", 2))), "without a resume"),
    "a cancel is undone": (
        lambda history: history[-1]["experiments"]["2"].update(
            status="completed", epochs=[[1, 1, 0.5], [2, 1, 0.4], [3, 1, 0.3]]
        ),
        "2 was cancelled and is completed at the end",
    ),
    "attempts are undone": (add(request("look", 14, 200, id=1, found=seen("completed", 1))), "later fewer"),
    "a name is read differently": (
        add(request("look", 14, 200, id=1, found=seen("completed", 2, "other"))),
        "was accepted as",
    ),
    "a tag is lost": (change({"tags": []}), "is stored as"),
    "an epoch is missing": (change({"epochs": [EPOCHS[0], EPOCHS[2]]}), "has the epochs [1, 3]"),
    "an epoch is there twice": (change({"epochs": [EPOCHS[0], *EPOCHS]}), "has the epochs [1, 1, 2, 3]"),
    "completed too early": (change({"epochs": EPOCHS[:2]}), "2 epochs of 3"),
    "epochs were read with a gap": (
        add(request("metrics", 9, 200, id=1, found={"epochs": [[2, 0.8]]})),
        "read with the epochs [2]",
    ),
    "an earlier attempt wrote after a later one": (
        change({"epochs": [[1, 2, 0.9], [2, 1, 0.8], [3, 2, 0.7]]}),
        "are of the attempts [2, 1, 2]",
    ),
    "a metric that was read is another": (change({"epochs": [[1, 1, 0.91], *EPOCHS[1:]]}), "epoch 1 was read as"),
    "a metric that was read is missing": (
        add(request("metrics", 9, 200, id=1, found={"epochs": [[1, 0.9], [2, 0.8], [3, 0.7], [4, 0.6]]})),
        "epoch 4 was read and is missing",
    ),
    "attempts overlap": (change({"runs": [run(1, 10.0, 13.0, "lost"), run(2, 12.0, 20.0)]}), "overlap"),
    "an attempt is open": (change({"runs": [run(1, 10.0, 12.0), run(2, 12.0, None, "running")]}), "still open"),
    "an attempt is missing": (change({"runs": [run(2, 12.0, 20.0)]}), "has the attempts [2]"),
    "an old owner wrote": (add(snapshot(10, "running", 2, (1, 1), (2, 2), (3, 1))), "written by attempt 1 after 2"),
    "an attempt is undone": (add(snapshot(10, "running", 1, (1, 1))), "was at attempt 2 and later at 1"),
    "an epoch is of an attempt to come": (add(snapshot(10, "running", 2, (1, 3))), "which there is not yet"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_promise_is_found(what: str) -> None:
    history = copy.deepcopy(whole())
    breaking, sentence = BROKEN[what]
    breaking(history)
    assert any(sentence in finding for finding in judge(history)), judge(history)


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_request_without_an_answer_may_have_been_done_or_not(number: str) -> None:
    history = whole()
    unanswered = request("submit", 13, 0, id=None, name="four", tags=[], key=None)
    history[-1:-1] = [request("delete", 13, 0, id=int(number)), unanswered]
    assert judge(history) == []
    forget(number)(history)
    assert judge(history) == []


def test_answers_that_overlap_prove_no_order() -> None:
    history = whole()
    late = request("look", 6.0, 200, ended=9.0, id=3, found={**seen("queued", 0), "name": "three", "tags": []})
    history[-1:-1] = [late]
    assert judge(history) == []


def test_epochs_beyond_a_checkpoint_may_go_when_a_cancelled_run_has_gone_on() -> None:
    history = whole()
    history[-1:-1] = [request("resume", 13, 202, id=1)]
    history[-1]["experiments"]["1"].update(status="cancelled", epochs=EPOCHS[:1])
    assert judge(history) == []


def test_a_history_without_an_end_is_a_finding() -> None:
    assert judge(whole()[:-1]) == ["the history has no end"]
