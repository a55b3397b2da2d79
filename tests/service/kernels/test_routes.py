"""Kernels as pictures and numbers, of the requested layer and epoch."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.store.runs import Claim
from models.store.states import ArtifactKind
from tests.service.lab_of_one import Filled, epoch

API = "/api/v1/experiments"
FIRST = np.arange(3 * 4 * 3 * 5 * 5, dtype=np.float32).reshape(3, 4, 3, 5, 5)


@pytest.fixture
def claim(filled: Filled) -> Claim:
    """A running experiment with three epochs of kernels, and best weights."""
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1), epoch(2), epoch(3)])
    filled.keep(claim, ArtifactKind.KERNELS, {"kernels": FIRST}, {"layer": "features.0"})
    weights = {"features.0.weight": FIRST[1], "features.2.weight": np.ones((2, 4, 3, 3), np.float32)}
    filled.keep(claim, ArtifactKind.WEIGHTS_BEST, weights, {})
    return claim


def values(client: TestClient, claim: Claim, **params: str) -> np.ndarray:
    answer = client.get(f"{API}/{claim.experiment_id}/kernels.json", params=params)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["layer"] == params.get("layer", "features.0")
    return np.array([kernel["values"] for kernel in document["kernels"]], np.float32)


def test_the_epoch_that_was_asked_for(client: TestClient, claim: Claim) -> None:
    for number in (1, 2, 3):
        assert np.array_equal(values(client, claim, epoch=str(number)), FIRST[number - 1])
    assert np.array_equal(values(client, claim), FIRST[1])
    assert np.array_equal(values(client, claim, epoch="best"), FIRST[1])
    assert np.array_equal(values(client, claim, epoch="last"), FIRST[2])
    assert values(client, claim, layer="features.2", epoch="best").shape == (2, 4, 3, 3)


def test_pictures(client: TestClient, claim: Claim) -> None:
    address = f"{API}/{claim.experiment_id}/kernels"
    png = client.get(f"{address}.png")
    assert png.content.startswith(b"\x89PNG")
    assert client.get(f"{address}.svg?scaling=kernel&layer=features.2").content.startswith(b"<?xml")
    assert client.get(f"{address}.png", headers={"If-None-Match": png.headers["etag"]}).status_code == 304
    assert client.get(f"{address}.png?scaling=kernel").headers["etag"] != png.headers["etag"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("layer=features.1", "layer"),
        ("layer=../../x", "layer"),
        ("epoch=0", "epoch"),
        ("epoch=4", "epoch"),
        ("epoch=-1", "epoch"),
        ("epoch=first", "epoch"),
        ("epoch=\u0661", "epoch"),
        ("epoch=99999999999", "epoch"),
        ("layer=features.2&epoch=1", "epoch"),
        ("scaling=none", "scaling"),
        ("scale=0", "scale"),
    ],
)
def test_what_there_is_not_is_named(client: TestClient, claim: Claim, query: str, field: str) -> None:
    answer = client.get(f"{API}/{claim.experiment_id}/kernels.png?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_before_there_are_any(client: TestClient, filled: Filled) -> None:
    assert client.get(f"{API}/{filled.add()}/kernels.png").status_code == 409


def test_a_file_that_is_gone_is_a_conflict_and_no_fault(client: TestClient, filled: Filled, claim: Claim) -> None:
    for path in filled.settings.experiments_dir.rglob("*.safetensors"):
        path.unlink()
    assert client.get(f"{API}/{claim.experiment_id}/kernels.png").status_code == 409


def test_an_epoch_that_was_thinned_out_is_not_found_and_its_neighbours_are_named(
    client: TestClient, filled: Filled
) -> None:
    claim = filled.start(filled.add(epochs=9))
    kept = {"kernels": FIRST.astype(np.float16), "epochs": np.array([1, 5, 9])}
    filled.keep(claim, ArtifactKind.KERNELS, kept, {"layer": "features.0"})
    for number, row in ((1, 0), (5, 1), (9, 2)):
        assert np.array_equal(values(client, claim, epoch=str(number)), FIRST[row])
    assert np.array_equal(values(client, claim, epoch="last"), FIRST[2])
    for missing, nearest in ((2, 1), (3, 1), (4, 5), (8, 9)):
        answer = client.get(f"{API}/{claim.experiment_id}/kernels.png?epoch={missing}")
        assert answer.status_code == 404
        assert answer.json()["errors"][0]["nearest"] == nearest
        assert f"epoch={nearest}" in answer.json()["fix"]
        found = client.get(f"{API}/{claim.experiment_id}/kernels.json?epoch={missing}&nearest=true").json()
        assert found["epoch"] == nearest
    assert client.get(f"{API}/{claim.experiment_id}/kernels.json?epoch=10&nearest=true").json()["epoch"] == 9
    assert client.get(f"{API}/{claim.experiment_id}/kernels.png?epoch=10").status_code == 422


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}", b"\x04\0\0\0\0\0\0\0null"])
def test_a_damaged_file_is_a_conflict_and_no_fault(
    client: TestClient, filled: Filled, claim: Claim, damage: bytes
) -> None:
    for path in filled.settings.experiments_dir.rglob("*.safetensors"):
        path.write_bytes(damage)
    assert client.get(f"{API}/{claim.experiment_id}/kernels.png").status_code == 409
    assert client.get(f"{API}/{claim.experiment_id}/kernels.json?epoch=2").status_code == 409
