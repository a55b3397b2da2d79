"""Event streams: complete, in order, many at once; an open one does not delay the end of the API."""

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from models.settings import Settings
from models.store import Status, keys, runs
from models.store.rows import add_event
from models.store.states import EventKind, Role
from service.app import create_app
from service.experiments import live
from tests.processes import wait_until
from tests.service.lab_of_one import Filled, LiveServer, epoch

Event = dict[str, Any]


@pytest.fixture
def server(settings: Settings, filled: Filled) -> Iterator[LiveServer]:
    with LiveServer(create_app(settings)) as server:
        yield server


def read_events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events out of lines."""
    event: Event = {}
    for line in lines:
        if not line:
            if "data" in event:
                yield event
            event = {}
            continue
        name, _, value = line.partition(": ")
        event[name] = json.loads(value) if name == "data" else value


def stream(server: LiveServer, experiment_id: int, last_id: str | None = None, **params: Any) -> list[Event]:
    """Every event until the stream closes."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    address = f"{server.url}/api/v1/experiments/{experiment_id}/events"
    with httpx.stream("GET", address, headers=headers, params=params, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(read_events(answer.iter_lines()))


def kinds(found: list[Event]) -> list[str]:
    return [event["event"] for event in found if event["event"] != "progress"]


def test_what_has_ended_is_replayed_and_closed(server: LiveServer, filled: Filled) -> None:
    identifier = filled.trained([epoch(1), epoch(2)])
    found = stream(server, identifier)
    assert kinds(found) == ["state", "state", "epoch", "epoch", "state", "end"]
    assert [event["data"]["epoch"] for event in found if event["event"] == "epoch"] == [1, 2]
    assert found[-1]["data"] == {"status": "completed", "reason": None}
    assert "id" not in found[-1]
    ids = [int(event["id"]) for event in found[:-1]]
    assert ids == sorted(set(ids))
    for start in range(len(ids)):
        rest = stream(server, identifier, str(ids[start]))
        assert [event.get("id") for event in rest] == [str(i) for i in ids[start + 1 :]] + [None]
    assert kinds(stream(server, identifier, after=ids[-2])) == ["state", "end"]
    assert kinds(stream(server, identifier, "9" * 18)) == ["end"]


def test_a_stream_follows_training_to_its_end(server: LiveServer, filled: Filled) -> None:
    claim = filled.start(filled.add())
    other = filled.start(filled.add())
    found: list[Event] = []
    address = f"{server.url}/api/v1/experiments/{claim.experiment_id}/events"
    with httpx.stream("GET", address, timeout=30) as answer:
        incoming = read_events(answer.iter_lines())
        found += [next(incoming), next(incoming)]  # queued, running
        with filled.store.writing() as session:
            runs.renew(session, claim, {"epoch": 1, "epochs": 3, "step": 5, "steps": 10})
        filled.append(other, [epoch(1)])
        assert next(e for e in incoming if e["event"] == "progress" and e["data"]["step"] == 5)
        for number in (1, 2, 3):
            filled.append(claim, [epoch(number)])
            found.append(next(e for e in incoming if e["event"] == "epoch"))
            assert found[-1]["data"]["epoch"] == number
        filled.judge(claim, {"summary": "s", "findings": []})
        filled.settle(claim, Status.FAILED, "out of memory")
        found += list(incoming)
    assert kinds(found) == ["state", "state", "epoch", "epoch", "epoch", "verdict", "state", "end"]
    assert found[-1]["data"] == {"status": "failed", "reason": "out of memory"}


def test_a_hundred_streams_all_see_everything(server: LiveServer, filled: Filled) -> None:
    claim = filled.start(filled.add())
    seen: list[list[str]] = []
    opened = threading.Barrier(101)

    address = f"{server.url}/api/v1/experiments/{claim.experiment_id}/events"
    client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=200))

    def follow() -> None:
        with client.stream("GET", address) as answer:
            incoming = read_events(answer.iter_lines())
            first = next(incoming)
            opened.wait(60)
            seen.append(kinds([first, *incoming]))

    threads = [threading.Thread(target=follow) for _ in range(100)]
    for thread in threads:
        thread.start()
    opened.wait(60)
    for number in range(1, 21):
        filled.append(claim, [epoch(number)])
    filled.settle(claim)
    for thread in threads:
        thread.join(60)
    client.close()
    assert len(seen) == 100
    assert all(one == ["state", "state", *["epoch"] * 20, "state", "end"] for one in seen)


def test_a_reader_that_falls_behind_misses_nothing(
    server: LiveServer, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_WAITING", 4)
    monkeypatch.setattr(live, "PAGE", 7)
    claim = filled.start(filled.add())
    address = f"{server.url}/api/v1/experiments/{claim.experiment_id}/events"
    with httpx.stream("GET", address, timeout=30) as answer:
        incoming = read_events(answer.iter_lines())
        next(incoming)
        with filled.store.writing() as session:
            for number in range(300):
                add_event(
                    session, claim.experiment_id, EventKind.NOTICE, {"code": "n", "text": "x" * 2000, "number": number}
                )
        filled.settle(claim)
        found = list(incoming)
    assert [event["data"]["number"] for event in found if event["event"] == "notice"] == list(range(300))
    assert kinds(found)[-2:] == ["state", "end"]


def test_deleting_ends_the_stream(server: LiveServer, filled: Filled) -> None:
    identifier = filled.add()
    address = f"{server.url}/api/v1/experiments/{identifier}"
    with httpx.stream("GET", f"{address}/events", timeout=30) as answer:
        incoming = read_events(answer.iter_lines())
        next(incoming)
        assert httpx.delete(address).status_code == 204
        assert list(incoming)[-1]["data"]["status"] == "deleted"


def test_a_stream_with_no_news_shows_that_it_lives(
    settings: Settings, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PING_SECONDS", 0.3)
    number = filled.add()
    with (
        LiveServer(create_app(settings)) as server,
        httpx.stream("GET", f"{server.url}/api/v1/experiments/{number}/events", timeout=30) as answer,
    ):
        lines = answer.iter_lines()
        assert [next(line for line in lines if line.startswith(":")) for _ in range(2)] == [": still here"] * 2


def test_an_open_stream_does_not_hold_up_stopping(settings: Settings, filled: Filled) -> None:
    claim = filled.start(filled.add())
    server = LiveServer(create_app(settings))
    with server:
        address = f"{server.url}/api/v1/experiments/{claim.experiment_id}/events"
        with httpx.stream("GET", address, timeout=30) as answer:
            incoming = read_events(answer.iter_lines())
            next(incoming)
            server.stop()
            assert "end" not in kinds(list(incoming)), "the stream was ended in order: a cut one raises"


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "9" * 30])
def test_wrong_event_ids_are_refused(server: LiveServer, filled: Filled, wrong: str) -> None:
    address = f"{server.url}/api/v1/experiments/{filled.add()}/events"
    assert httpx.get(address, headers={"Last-Event-ID": wrong}).status_code == 422
    assert httpx.get(address, params={"after": wrong}).status_code == 422


@pytest.fixture
def keyed(settings: Settings, filled: Filled) -> Iterator[tuple[LiveServer, dict[str, str]]]:
    """A lab with keys on, and the header of one called ada."""
    with filled.store.writing() as session:
        _, key = keys.create(session, "ada", Role.SUBMITTER)
    with LiveServer(create_app(settings.model_copy(update={"auth": True}))) as server:
        yield server, {"Authorization": f"Bearer {key}"}


def test_a_revoked_key_ends_its_streams(keyed: tuple[LiveServer, dict[str, str]], filled: Filled) -> None:
    server, headers = keyed
    address = f"{server.url}/api/v1/experiments/{filled.add()}/events"
    with httpx.stream("GET", address, headers=headers, timeout=30) as answer:
        incoming = read_events(answer.iter_lines())
        next(incoming)
        with filled.store.writing() as session:
            keys.revoke(session, "ada")
        assert kinds(list(incoming)) == []


def test_one_key_holds_so_many_streams_and_others_theirs(
    keyed: tuple[LiveServer, dict[str, str]], filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS_A_KEY", 3)
    server, headers = keyed
    address = f"{server.url}/api/v1/experiments/{filled.add()}/events"
    with filled.store.writing() as session:
        _, other = keys.create(session, "grace", Role.VIEWER)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        for _ in range(3):
            assert first.enter_context(httpx.stream("GET", address, headers=headers, timeout=30)).status_code == 200
        refused = httpx.get(address, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
        assert "'ada' has 3 event streams open" in refused.json()["detail"]
        theirs = httpx.stream("GET", address, headers={"Authorization": f"Bearer {other}"}, timeout=30)
        assert stack.enter_context(theirs).status_code == 200
        first.close()
        wait_until(lambda: still_refused(address, headers) is False)


def still_refused(address: str, headers: dict[str, str]) -> bool:
    with httpx.stream("GET", address, headers=headers, timeout=30) as answer:
        return answer.status_code == 429
