"""model.init_from: another experiment's weights are found, checked and kept when an experiment is submitted."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import save
from starlette.testclient import TestClient

from models.data.cifar10 import CIFAR10
from models.networks.build import build_network
from models.spec.parse import parse_spec
from models.store import Status, artifacts
from models.store.states import ArtifactKind
from tests.service.lab_of_one import Filled, epoch

API = "/api/v1/experiments"
SMALL = {"name": "cnn", "blocks": [{"convs": [{"channels": 4}]}]}


def ended(filled: Filled, model: dict[str, Any] = SMALL, *, classes: tuple[str, ...] = CIFAR10.class_names) -> int:
    """An experiment that has trained this network, with its best weights on the disk."""
    claim = filled.start(filled.add(model=model, epochs=1))
    filled.append(claim, [epoch(1)])
    network = build_network(parse_spec({"model": model}).model, num_classes=len(classes), in_channels=3, size=32)
    about = {"model": model, "preprocessing": {"class_names": list(classes)}}
    tensors = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
    content = save(tensors, {"epochal": json.dumps(about)})
    filled.keep_bytes(claim, "stored-best.safetensors", ArtifactKind.WEIGHTS_BEST, content, epoch=1)
    filled.settle(claim, Status.COMPLETED)
    return claim.experiment_id


def post(client: TestClient, number: int, model: dict[str, Any] = SMALL, **start: Any) -> Any:
    body = {"model": {**model, "init_from": {"experiment": number, **start}}, "epochs": 1}
    return client.post(API, json=body)


def kept(filled: Filled, number: int) -> Any:
    with filled.store.reading() as session:
        return artifacts.find(session, number, ArtifactKind.WEIGHTS_INITIAL)


def test_the_weights_are_kept_with_the_experiment_whatever_becomes_of_the_other(
    client: TestClient, filled: Filled
) -> None:
    source = ended(filled)
    answer = post(client, source)
    assert answer.status_code == 202
    number = answer.json()["id"]
    record = kept(filled, number)
    start = answer.json()["spec"]["model"]["init_from"]
    assert start == {"experiment": source, "weights": "best", "sha256": record.sha256}
    assert client.delete(f"{API}/{source}").status_code == 204
    assert record.file(filled.settings.experiments_dir).stat().st_size == record.num_bytes
    assert filled.start(number).spec.model.init_from is not None
    again = client.post(f"{API}/{number}/reproduce")
    assert again.status_code == 202
    assert kept(filled, again.json()["id"]).sha256 == record.sha256


def test_a_stored_spec_can_be_posted_again(client: TestClient, filled: Filled) -> None:
    source = ended(filled)
    spec = post(client, source).json()["spec"]
    assert client.post(API, json=spec).json()["spec"]["model"] == spec["model"]
    other = {**spec, "model": {**spec["model"], "init_from": {"experiment": source, "sha256": "0" * 64}}}
    error = client.post(API, json=other).json()["errors"][0]
    assert error["field"] == "model.init_from.sha256"
    assert error["nearest"] == spec["model"]["init_from"]["sha256"]


def test_a_network_without_a_start_is_stored_as_before(client: TestClient) -> None:
    answer = client.post(API, json={"model": SMALL})
    assert "init_from" not in answer.json()["spec"]["model"]


def test_other_classes_need_no_head_that_fits(client: TestClient, filled: Filled) -> None:
    assert post(client, ended(filled, classes=("cat", "dog"))).status_code == 202


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "cnn", "blocks": [{"convs": [{"channels": 5}]}]}, "features.0.weight"),
        ({"name": "cnn", "blocks": [{"convs": [{"channels": 4}, {"channels": 4}]}]}, "features.2.weight"),
        ({**SMALL, "head": {"hidden": [7]}}, "classifier"),
    ],
)
def test_a_network_that_does_not_fit_names_the_layer(
    client: TestClient, filled: Filled, model: dict[str, Any], words: str
) -> None:
    source = ended(filled)
    answer = post(client, source, model)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "model.init_from"
    assert words in answer.json()["errors"][0]["message"]
    assert '"channels": 4' in answer.json()["fix"]


def test_what_is_not_there_is_refused_by_its_field(client: TestClient, filled: Filled) -> None:
    fields = {
        "model.init_from.experiment": post(client, 9999),
        "model.init_from.weights": post(client, ended(filled), weights="last"),
    }
    for field, answer in fields.items():
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field
    assert post(client, filled.add(), weights="worst").status_code == 422
    damaged = ended(filled)
    with filled.store.reading() as session:
        record = artifacts.newest(session, damaged, ArtifactKind.WEIGHTS_BEST)
    assert record is not None
    record.file(filled.settings.experiments_dir).write_bytes(b"cut short")
    assert "cannot be read" in post(client, damaged).json()["errors"][0]["message"]


def test_a_learning_rate_test_starts_anew_and_says_so(client: TestClient, filled: Filled) -> None:
    body = {"model": {**SMALL, "init_from": {"experiment": ended(filled)}}}
    answer = client.post("/api/v1/learning-rate-tests", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "model.init_from"
