"""A key's experiments use no more disk than its quota, what its queued ones will need included."""

import numpy as np
import pytest
from httpx import Response
from starlette.testclient import TestClient

from models.settings import Settings
from models.store import experiments, keys
from models.store.states import ArtifactKind, Role, Status
from tests.service.lab_of_one import SMALL, Filled

API = "/api/v1/experiments"
BIG = {**SMALL, "model": {"name": "cnn", "blocks": [{"convs": [{"channels": 8}]}], "head": {"hidden": [100]}}}
"""180,000 weights: with two checkpoints that have a momentum each and the weights of three epochs, 5.4 MB."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": True, "max_disk_mb": 12})


@pytest.fixture
def headers(filled: Filled) -> dict[str, str]:
    return headers_of(filled, "ada")


def headers_of(filled: Filled, name: str) -> dict[str, str]:
    with filled.store.writing() as session:
        return {"Authorization": f"Bearer {keys.create(session, name, Role.SUBMITTER)[1]}"}


def is_over_quota(answer: Response) -> bool:
    return (answer.status_code, answer.json()["code"]) == (507, "disk-quota")


def finish(filled: Filled, experiment_id: int, megabytes: float) -> None:
    """A worker trains it and leaves files of this size."""
    claim = filled.start(experiment_id)
    filled.keep(claim, ArtifactKind.WEIGHTS_LAST, {"a": np.zeros(int(megabytes * 250_000), np.float32)}, {})
    filled.settle(claim, Status.CANCELLED)


def test_what_is_stored_counts_and_the_answer_says_what_to_delete(
    client: TestClient, filled: Filled, headers: dict[str, str]
) -> None:
    small, large = (client.post(API, json=SMALL, headers=headers).json()["id"] for _ in range(2))
    finish(filled, small, 2)
    finish(filled, large, 7.5)
    refused = client.post(API, json=BIG, headers=headers)
    assert is_over_quota(refused)
    assert "of 12 MB" in refused.json()["detail"]
    assert f"{large} (7.5 MB), {small} (2.0 MB)" in refused.json()["fix"]
    with filled.store.reading() as session:
        assert len(experiments.unfinished(session, "ada")) == 0
    assert client.delete(f"{API}/{large}", headers=headers).status_code == 204
    assert client.post(API, json=BIG, headers=headers).status_code == 202


def test_what_waits_in_the_queue_counts_with_what_it_will_need(
    client: TestClient, filled: Filled, headers: dict[str, str]
) -> None:
    queued = [client.post(API, json=BIG, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in queued] == [202, 202, 507]
    assert "cancel some of those in the queue" in queued[-1].json()["fix"]
    first = queued[0].json()["id"]
    client.post(f"{API}/{first}/cancel", headers=headers)
    assert client.post(API, json=BIG, headers=headers).status_code == 202
    assert is_over_quota(client.post(f"{API}/{first}/resume", headers=headers))
    assert client.get(f"{API}/{first}", headers=headers).json()["status"] == "cancelled"
    assert is_over_quota(client.post(f"{API}/{first}/reproduce", headers=headers))


def test_every_key_has_a_share_of_its_own(client: TestClient, filled: Filled, headers: dict[str, str]) -> None:
    for _ in range(2):
        assert client.post(API, json=BIG, headers=headers).status_code == 202
    assert is_over_quota(client.post(API, json=BIG, headers=headers))
    assert client.post(API, json=BIG, headers=headers_of(filled, "grace")).status_code == 202


def test_an_answer_that_is_asked_for_again_is_no_second_experiment(
    client: TestClient, filled: Filled, headers: dict[str, str]
) -> None:
    once = {**headers, "Idempotency-Key": "1"}
    first = client.post(API, json=BIG, headers=once)
    assert client.post(API, json=BIG, headers=headers).status_code == 202
    again = client.post(API, json=BIG, headers=once)
    assert again.status_code in (200, 202)
    assert again.json()["id"] == first.json()["id"]
