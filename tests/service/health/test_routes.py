"""/healthz needs the API alone, /readyz every part of the lab."""

import asyncio
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.errors import Unavailable
from models.settings import Settings
from models.store import keys, workers
from models.store.states import Role
from service.health import check as health
from service.health.check import Readiness, require_ready
from tests.service.lab_of_one import Filled, client_of, epoch


def test_alive_without_a_broker_or_a_worker(client: TestClient) -> None:
    for path in ("/healthz", "/api/v1/healthz"):
        assert client.get(path).json() == {"status": "ok"}


def test_what_is_missing_is_named(client: TestClient, filled: Filled) -> None:
    with filled.store.writing() as session:
        workers.beat(session, "worker-1", host="lab", pid=1, device="cpu")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    problem = answer.json()
    assert problem["detail"] == "not ready: the broker does not answer (No such file or directory)"
    assert problem["checks"]["database"]["ok"]
    assert problem["checks"]["workers"] == {"ok": True, "names": ["worker-1"]}
    assert answer.headers["retry-after"]


def test_readiness_without_a_key_has_no_details(settings: Settings, filled: Filled) -> None:
    with filled.store.writing() as session:
        workers.beat(session, "worker-1", host="lab", pid=1, device="cpu")
        _, key = keys.create(session, "vera", Role.VIEWER)
    with client_of(settings.model_copy(update={"auth": True})) as client:
        for headers in ({}, {"X-API-Key": "epochal_wrong"}):
            answer = client.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()["detail"]) == (503, "not ready")
            assert "worker-1" not in answer.text
            assert "broker" not in answer.text
        answer = client.get("/readyz", headers={"X-API-Key": key})
        assert answer.json()["checks"]["workers"]["names"] == ["worker-1"]


def test_each_failed_part_is_named_with_its_reason() -> None:
    checks = {
        "database": {"ok": False, "reason": "the database refuses the user name or password"},
        "broker": {"ok": False, "reason": "has no database of that number"},
        "workers": {"ok": False, "names": []},
    }
    with pytest.raises(Unavailable) as caught:
        require_ready(checks, in_detail=True)
    assert caught.value.detail == (
        "not ready: the database refuses the user name or password; the broker has no database of that number; "
        "no worker answers"
    )


def test_however_many_ask_the_parts_are_asked_once() -> None:
    asked: list[float] = []

    def check(*parts: Any) -> dict[str, Any]:
        asked.append(1)
        return {"broker": {"ok": True}}

    async def crowd() -> list[Any]:
        readiness = Readiness(None, None, check=check)  # type: ignore[arg-type]
        return await asyncio.gather(*(readiness.checks() for _ in range(100)))

    assert asyncio.run(crowd()) == [{"broker": {"ok": True}}] * 100
    assert len(asked) == 1


def test_a_part_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.01)
    answers = threading.Event()

    def check(*parts: Any) -> dict[str, Any]:
        answers.wait(20)
        return {"broker": {"ok": True}}

    async def ask() -> tuple[Any, Any]:
        readiness = Readiness(None, None, check=check)  # type: ignore[arg-type]
        first = await asyncio.gather(*(readiness.checks() for _ in range(10)))
        monkeypatch.setattr(health, "PATIENCE_SECONDS", 20)
        answers.set()
        return first, await readiness.checks()

    first, then = asyncio.run(ask())
    assert [checks["checks"]["ok"] for checks in first] == [False] * 10
    assert then == {"broker": {"ok": True}}


def test_prometheus_counts_by_route_and_not_by_id(client: TestClient, filled: Filled) -> None:
    identifier = filled.trained([epoch(1)])
    client.get(f"/api/v1/experiments/{identifier}")
    client.get("/nothing/here")
    text = client.get("/metrics").text
    assert 'epochal_experiments{status="completed"} 1.0' in text
    assert 'route="/experiments/{experiment_id}",status="200"' in text
    assert 'route="none",status="404"' in text
    assert "epochal_queue_messages -1.0" in text
