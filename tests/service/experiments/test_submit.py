"""Experiments are stored, then enqueued: with a working, an unreachable and a full broker."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from starlette.testclient import TestClient

from models.queue import make_celery, queued_messages
from models.settings import Settings
from models.store import experiments
from service.lab.broker import EmbeddedBroker
from service.lab.processes import Part
from tests.processes import wait_until
from tests.service.lab_of_one import SMALL, Filled, client_of

API = "/api/v1/experiments"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path)
    part = Part("broker", broker.command, tmp_path / "broker.log", broker.folder, dict(os.environ), grace_seconds=5.0)
    part.start()
    wait_until(broker.answers)
    yield broker
    part.terminate()
    part.wait_or_kill(time.monotonic() + 5)
    broker.clean_up()


@pytest.fixture
def queued(settings: Settings, broker: EmbeddedBroker, filled: Filled) -> Iterator[TestClient]:
    """A client of a lab whose broker runs."""
    with client_of(settings.model_copy(update={"broker_url": broker.url})) as client:
        yield client


def waiting(filled: Filled) -> list[int]:
    with filled.store.reading() as session:
        return experiments.waiting(session)


def test_a_message_is_sent_once_and_noted(queued: TestClient, filled: Filled, broker: EmbeddedBroker) -> None:
    headers = {"Idempotency-Key": "k"}
    identifier = queued.post(API, json=SMALL, headers=headers).json()["id"]
    queued.post(API, json=SMALL, headers=headers)
    celery = make_celery(filled.settings.model_copy(update={"broker_url": broker.url}))
    assert queued_messages(celery) == {identifier}
    with redis.Redis(unix_socket_path=str(broker.socket_path), password=broker.password) as client:
        assert client.llen("experiments") == 1
    assert waiting(filled) == []


def test_without_a_broker_it_waits_in_the_database(client: TestClient, filled: Filled) -> None:
    answer = client.post(API, json=SMALL)
    assert answer.status_code == 202
    assert waiting(filled) == [answer.json()["id"]]


def test_while_the_database_is_locked_writes_wait_and_reads_go_on(client: TestClient, filled: Filled) -> None:
    identifier = filled.add()
    with ThreadPoolExecutor(60) as pool:
        with filled.store.writing() as session:
            experiments.mark_enqueued(session, identifier)  # from here on the database is locked
            writes = [pool.submit(client.post, API, json=SMALL) for _ in range(60)]
            for path in ("/healthz", API, f"{API}/{identifier}", f"{API}/{identifier}/curves.png"):
                assert client.get(path).status_code == 200
            assert not any(write.done() for write in writes)
        assert {write.result().status_code for write in writes} == {202}
    assert len(waiting(filled)) == 60


def test_a_full_broker_is_a_503_and_nothing_is_kept(queued: TestClient, filled: Filled, broker: EmbeddedBroker) -> None:
    with redis.Redis(unix_socket_path=str(broker.socket_path), password=broker.password) as client:
        client.config_set("maxmemory", "1")
        refused = queued.post(API, json=SMALL)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        assert "out of memory" in refused.json()["detail"]
        assert waiting(filled) == []
        # Somebody else may have been told of one with a key, so it stays and is enqueued later.
        kept = queued.post(API, json=SMALL, headers={"Idempotency-Key": "k"})
        assert kept.status_code == 202
        assert waiting(filled) == [kept.json()["id"]]
        client.config_set("maxmemory", "0")
        assert queued.post(API, json=SMALL).status_code == 202


def test_an_impossible_network_never_reaches_the_store(queued: TestClient, filled: Filled) -> None:
    bomb = {"name": "cnn", "blocks": [{"convs": [{"channels": 4096, "padding": 1}] * 32, "pool": None}] * 32}
    for body in ({"model": bomb}, {"model": {"name": "resnet50", "input_size": 512}, "batch_size": 65536}):
        answer = queued.post(API, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-spec")
    with filled.store.reading() as session:
        assert sum(experiments.count_by_status(session).values()) == 0
