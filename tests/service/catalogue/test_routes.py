"""Datasets, architectures, presets and the schema over HTTP."""

import jsonschema
from starlette.testclient import TestClient

API = "/api/v1"


def test_what_is_listed_can_be_submitted(client: TestClient) -> None:
    assert {"cifar10", "fashion-mnist"} <= {entry["name"] for entry in client.get(f"{API}/datasets").json()["datasets"]}
    presets = client.get(f"{API}/presets").json()
    assert {"baseline", "wide", "three_blocks"} <= set(presets["models"])
    assert presets["studies"]["lab-report"]["variants"]
    for name in presets["experiments"]:
        assert client.post(f"{API}/experiments", json={"preset": name}).status_code == 202, name
    architectures = client.get(f"{API}/architectures").json()["architectures"]
    assert {"squeezenet1_1", "resnet50"} <= {entry["name"] for entry in architectures}


def test_a_stored_spec_fits_the_schema(client: TestClient) -> None:
    schema = client.get(f"{API}/schema").json()
    spec = client.post(f"{API}/experiments", json={"model": "baseline", "optimizer": "adamw"}).json()["spec"]
    jsonschema.validate(spec, schema)
