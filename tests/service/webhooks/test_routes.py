"""Webhooks over HTTP: added, listed, changed, tested, deleted; their secret is shown once."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from models.settings import Settings
from models.store import keys
from models.store.states import Role
from models.store.webhooks import Outcome
from models.webhooks import CHOICES
from service.app import create_app
from service.cli import options
from service.cli.client import Client
from service.cli.main import app
from service.webhooks.connect import Connector
from tests.processes import wait_until
from tests.service.lab_of_one import Filled, LiveServer, client_of, epoch, settings_in
from tests.service.webhooks.receiver import Receiver

WEBHOOKS = "/api/v1/webhooks"
ADDRESS = "https://hooks.example/epochal?token=abc"


def add(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post(WEBHOOKS, json={"url": ADDRESS, **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == answer.json()["links"]["self"]
    return dict(answer.json())


def test_a_webhook_is_added_read_listed_changed_and_deleted_and_shows_its_secret_once(client: TestClient) -> None:
    made = add(client, name="chat", events=["experiment.failed", "study.completed", "study.completed"])
    assert made.pop("secret").startswith("whsec_")
    assert (made["id"], made["name"], made["url"], made["enabled"]) == (1, "chat", ADDRESS, True)
    assert made["events"] == ["experiment.failed", "study.completed"]
    assert client.get(f"{WEBHOOKS}/1").json() == made
    assert client.get(WEBHOOKS).json() == {"items": [made], "total": 1}

    changed = client.patch(f"{WEBHOOKS}/1", json={"enabled": False, "events": ["study.failed"], "name": ""})
    assert changed.status_code == 200, changed.text
    expected = {**made, "enabled": False, "events": ["study.failed"], "name": "", "reason": "disabled by request"}
    assert changed.json() == expected
    assert client.post(f"{WEBHOOKS}/1/test").status_code == 409
    assert client.patch(f"{WEBHOOKS}/1", json={"enabled": True}).json()["reason"] is None

    assert client.delete(f"{WEBHOOKS}/1").status_code == 204
    assert client.get(f"{WEBHOOKS}/1").status_code == 404
    assert client.get(WEBHOOKS).json()["total"] == 0
    assert add(client)["events"] == [event.value for event in CHOICES]


WRONG: list[tuple[Any, str]] = [
    ({}, "url"),
    ({"url": "ftp://hooks.example/"}, "url"),
    ({"url": "http://127.0.0.1:9000/"}, "url"),
    ({"url": "http://2130706433:9000/"}, "url"),
    ({"url": "http://[::1]:9000/"}, "url"),
    ({"url": "http://localhost:9000/"}, "url"),
    ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
    ({"url": "https://ada:secret@hooks.example/"}, "url"),
    ({"url": 7}, "url"),
    ({"url": ADDRESS, "events": []}, "events"),
    ({"url": ADDRESS, "events": ["experiment.complete"]}, "events.0"),
    ({"url": ADDRESS, "events": ["webhook.test"]}, "events.0"),
    ({"url": ADDRESS, "events": "experiment.completed"}, "events"),
    ({"url": ADDRESS, "secret": "whsec_mine"}, "secret"),
    ({"url": ADDRESS, "name": "a" * 201}, "name"),
]


def test_a_wrong_field_is_named(client: TestClient) -> None:
    add(client)
    for body, field in WRONG:
        answer = client.post(WEBHOOKS, json=body)
        assert answer.status_code == 422
        assert [entry["field"] for entry in answer.json()["errors"]] == [field]
        changes = {key: value for key, value in body.items() if value != ADDRESS}
        if changes:
            changed = client.patch(f"{WEBHOOKS}/1", json=changes)
            assert [entry["field"] for entry in changed.json()["errors"]] == [field]
    assert client.get(WEBHOOKS).json()["total"] == 1


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent gets no answer."""

    async def post(*_: object) -> Outcome:
        return Outcome(delivered=False, status=None, answer="offline")

    monkeypatch.setattr(Connector, "post", post)


@pytest.mark.usefixtures("offline")
def test_what_was_sent_is_listed_a_page_at_a_time(client: TestClient, filled: Filled) -> None:
    add(client, events=["experiment.completed"])
    for _ in range(3):
        filled.trained([epoch(1)])
    client.patch(f"{WEBHOOKS}/1", json={"enabled": False})
    first = client.get(f"{WEBHOOKS}/1/deliveries?limit=2").json()
    assert ([one["id"] for one in first["items"]], first["next"], first["total"]) == ([3, 2], "2", 3)
    rest = client.get(f"{WEBHOOKS}/1/deliveries?limit=2&cursor=2").json()
    assert ([one["id"] for one in rest["items"]], rest["next"]) == ([1], None)
    one = client.get(f"{WEBHOOKS}/1/deliveries/1").json()
    assert one == rest["items"][0]
    assert (one["event"], one["status"]) == ("experiment.completed", "failed")
    assert one["payload"]["type"] == "experiment.completed"
    assert client.get(f"{WEBHOOKS}/1/deliveries?cursor=x").status_code == 422
    assert client.get(f"{WEBHOOKS}/1/deliveries?status=failed").json()["total"] == 3
    assert client.get(f"{WEBHOOKS}/1/deliveries?status=delivered").json()["items"] == []
    assert client.get(f"{WEBHOOKS}/1/deliveries?status=lost").status_code == 422
    assert client.get(f"{WEBHOOKS}/1/deliveries/9").status_code == 404
    assert client.get(f"{WEBHOOKS}/2/deliveries").status_code == 404
    again = client.post(f"{WEBHOOKS}/1/deliveries/1/redeliver")
    assert again.status_code == 409
    assert "disabled" in again.json()["detail"]


def test_a_viewer_sees_that_there_are_webhooks_and_no_part_of_an_address_that_may_be_a_secret(
    settings: Settings, filled: Filled
) -> None:
    with filled.store.writing() as session:
        texts = {role: keys.create(session, role.value, role)[1] for role in Role}
    with client_of(settings.model_copy(update={"auth": True})) as client:

        def ask(role: Role, method: str, path: str = "", body: Any = None) -> Any:
            return client.request(method, WEBHOOKS + path, json=body, headers={"X-API-Key": texts[role]})

        assert client.get(WEBHOOKS).status_code == 401
        made = ask(Role.SUBMITTER, "POST", body={"url": ADDRESS}).json()
        assert made["created_by"] == "submitter"
        assert ask(Role.SUBMITTER, "GET", "/1").json()["url"] == ADDRESS
        assert ask(Role.VIEWER, "GET", "/1").json()["url"] == "https://hooks.example/..."
        assert ask(Role.VIEWER, "GET", "/1/deliveries").status_code == 200
        for method, path, body in (
            ("POST", "", {"url": ADDRESS}),
            ("PATCH", "/1", {"enabled": False}),
            ("DELETE", "/1", None),
            ("POST", "/1/test", None),
            ("POST", "/1/deliveries/1/redeliver", None),
        ):
            assert ask(Role.VIEWER, method, path, body).status_code == 403


@pytest.fixture
def live(tmp_path: Any) -> Iterator[tuple[str, Filled]]:
    """A lab behind a server that may send to this machine."""
    filled = Filled(settings_in(tmp_path, webhook_private=True))
    with LiveServer(create_app(filled.settings)) as server:
        yield server.url, filled
    filled.store.dispose()


def test_webhooks_are_added_tested_and_told_by_a_running_lab_and_its_commands(
    live: tuple[str, Filled], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, filled = live

    def run(*arguments: str, expect: int = 0) -> str:
        result = CliRunner().invoke(app, ["webhook", *arguments], env={"COLUMNS": "250"})
        assert result.exit_code == expect, f"{result.stdout}\n{result.stderr}"
        return result.stdout

    with Client(url) as client, Receiver(answers=[200, 404]) as receiver:
        monkeypatch.setattr(options, "connect", lambda *_: client)
        assert "no webhooks" in run("list")
        assert "whsec_" in run("add", receiver.url, "--event", "experiment.completed", "--name", "here")
        assert "delivered: 200 thank you" in run("test", "1")
        assert "not delivered yet: 404" in run("test", "1", expect=1)
        assert "experiment.completed" in run("list")
        number = filled.trained([epoch(1)])
        wait_until(lambda: len(receiver.arrived) == 3, what="the third message")
        assert json.loads(receiver.arrived[-1].body)["data"]["id"] == number
        assert "webhook.test" in run("show", "1")
        assert "deleted" in run("delete", "1")
        assert json.loads(run("list", "--json"))["total"] == 0
