"""A completed experiment is continued with more epochs as a new one that begins with its epochs and files."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from models.store import Status, Store, artifacts
from models.store.runs import Claim
from models.store.states import ArtifactKind
from tests.service.lab_of_one import Filled, epoch

API = "/api/v1/experiments"


def ended(filled: Filled, status: Status = Status.COMPLETED, **changes: Any) -> Claim:
    """An experiment with two epochs and a checkpoint after them."""
    claim = filled.start(filled.add(epochs=2, **changes))
    filled.append(claim, [epoch(1), epoch(2, val_accuracy=0.7)])
    filled.keep_bytes(claim, "stored-checkpoint.pt", ArtifactKind.CHECKPOINT, b"checkpoint", epoch=2)
    filled.keep_bytes(claim, "stored-best.safetensors", ArtifactKind.WEIGHTS_BEST, b"best")
    filled.settle(claim, status)
    return claim


def test_its_epochs_and_files_are_the_new_ones_first(client: TestClient, filled: Filled) -> None:
    original = ended(filled, name="first", tags=["a"]).experiment_id
    client.patch(f"{API}/{original}", json={"name": "renamed"})
    answer = client.post(f"{API}/{original}/continue", json={"epochs": 3})
    assert answer.status_code == 202
    document = answer.json()
    assert answer.headers["location"] == document["links"]["self"]
    assert (document["continues"], document["status"], document["name"]) == (original, "queued", "renamed")
    assert document["spec"]["epochs"] == 5
    assert document["tags"] == ["a"]
    assert document["best"]["val_accuracy"] == {"value": 0.7, "epoch": 2}
    epochs = [client.get(f"{API}/{number}/metrics").json()["epochs"] for number in (original, document["id"])]
    assert epochs[0] == epochs[1]
    claim = filled.start(document["id"])
    assert claim.start_epoch == 2
    assert [record.file(filled.settings.experiments_dir).read_bytes() for record in claim.checkpoints] == [
        b"checkpoint"
    ]
    filled.append(claim, [epoch(3)])
    assert len(client.get(f"{API}/{document['id']}/metrics").json()["epochs"]) == 3


def test_the_original_can_be_deleted_meanwhile(client: TestClient, filled: Filled) -> None:
    original = ended(filled).experiment_id
    number = client.post(f"{API}/{original}/continue", json={"epochs": 1}).json()["id"]
    assert client.delete(f"{API}/{original}").status_code == 204
    assert client.get(f"{API}/{number}").json()["continues"] is None
    assert contents(filled.store, filled, number) == {"checkpoint": b"checkpoint", "weights-best": b"best"}


def contents(store: Store, filled: Filled, number: int) -> dict[str, bytes]:
    with store.reading() as session:
        records = artifacts.list_for(session, number)
    return {str(record.kind): record.file(filled.settings.experiments_dir).read_bytes() for record in records}


def test_a_key_makes_one_continuation(client: TestClient, filled: Filled) -> None:
    original = ended(filled).experiment_id
    answers = [
        client.post(f"{API}/{original}/continue", json={"epochs": 1}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["idempotent-replayed"] == "true"
    other = client.post(f"{API}/{original}/continue", json={"epochs": 2}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422


@pytest.mark.parametrize("kind", ["cosine", "one_cycle"])
def test_a_schedule_that_depends_on_the_epochs_is_warned_about(client: TestClient, filled: Filled, kind: str) -> None:
    original = ended(filled, lr_scheduler={"name": kind}).experiment_id
    document = client.post(f"{API}/{original}/continue", json={"epochs": 3}).json()
    assert "schedule-stretched" in [warning["code"] for warning in document["warnings"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "epochs"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"epochs": 9_999}, "epochs"),
        ({"epochs": 1, "lr": 0.1}, "lr"),
        ([1], "body"),
    ],
)
def test_a_wrong_body_names_its_field(client: TestClient, filled: Filled, body: Any, field: str) -> None:
    answer = client.post(f"{API}/{ended(filled).experiment_id}/continue", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.DIVERGED])
def test_what_has_not_completed_is_resumed_instead(client: TestClient, filled: Filled, status: Status) -> None:
    answer = client.post(f"{API}/{ended(filled, status).experiment_id}/continue", json={"epochs": 1})
    assert answer.status_code == 409
    assert "/resume" in answer.json()["fix"]


def test_without_a_checkpoint_there_is_nothing_to_continue_from(client: TestClient, filled: Filled) -> None:
    assert client.post(f"{API}/{filled.trained([epoch(1)])}/continue", json={"epochs": 1}).status_code == 409
    gone = ended(filled)
    with filled.store.reading() as session:
        artifacts.checkpoints(session, gone.experiment_id)[0].file(filled.settings.experiments_dir).unlink()
    answer = client.post(f"{API}/{gone.experiment_id}/continue", json={"epochs": 1})
    assert answer.status_code == 409
    assert "missing" in answer.json()["detail"]
    assert client.get(API).json()["total"] == 2, "nothing was created"
    assert client.post(f"{API}/99/continue", json={"epochs": 1}).status_code == 404
