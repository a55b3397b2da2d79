"""The lab as NVIDIA's client of the Open Inference Protocol sees it."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.service.open_inference.conftest import Served, files, pixels

FLOATS = (pixels() / 255).astype(np.float32)


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(served.address)
    yield client
    client.close()


def images(values: Any, datatype: str, *, binary: bool = True) -> triton.InferInput:
    found = triton.InferInput("images", values.shape, datatype)
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def encoded() -> Any:
    return np.array(files(), dtype=object)


def answers(served: Served, version: int = 2) -> list[dict[str, float]]:
    """What the lab's own address says of the same images."""
    answer = httpx.post(
        f"{served.url}/api/v1/models/cats/predictions?top_k=10&version={version}",
        files=[("image", ("x.png", file)) for file in files()],
        headers=served.headers(),
    )
    return [{one["label"]: one["probability"] for one in found["top"]} for found in answer.json()["predictions"]]


def check(served: Served, client: Any, result: Any, version: int = 2) -> None:
    labels = client.get_model_metadata("cats", headers=served.headers())["parameters"]["class_names"]
    wanted = answers(served, version)
    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, [[one[label] for label in labels] for one in wanted], atol=1e-6)
    best = [label if isinstance(label, str) else label.decode() for label in result.as_numpy("labels")]
    assert best == [max(one, key=one.__getitem__) for one in wanted]


def json_of(client: Any, path: str, headers: dict[str, str] | None = None) -> Any:
    return json.loads(client._get(path, headers, None).read())


def test_health_and_metadata(served: Served, client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert json_of(client, "v2/health/live") == {"live": True}
    assert json_of(client, "v2/health/ready") == {"live": True, "ready": True}
    headers = served.headers()
    server = client.get_server_metadata(headers=headers)
    assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("epochal", True)
    model = client.get_model_metadata("cats", headers=headers)
    assert (model["name"], model["versions"]) == ("cats", ["1", "2"])
    assert [(one["name"], one["datatype"], one["shape"]) for one in model["inputs"]] == [
        ("images", "BYTES", [-1]),
        ("images", "UINT8", [-1, 3, 32, 32]),
        ("images", "FP32", [-1, 3, 32, 32]),
    ]
    assert model["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        {"name": "labels", "datatype": "BYTES", "shape": [-1]},
    ]
    assert client.is_model_ready("cats", headers=headers)
    assert client.is_model_ready("cats", "1", headers=headers)
    for place in ("cats", "cats/versions/1"):
        assert json_of(client, f"v2/models/{place}/ready", headers) == {"name": "cats", "ready": True}
    assert not client.is_model_ready("cats", "3", headers=headers)
    assert not client.is_model_ready("dogs", headers=headers)


@pytest.mark.parametrize("datatype", ["BYTES", "UINT8", "FP32"])
def test_every_datatype_gets_the_answers_of_the_predictions_address(served: Served, client: Any, datatype: str) -> None:
    values = {"BYTES": encoded(), "UINT8": pixels(), "FP32": FLOATS}[datatype]
    result = client.infer("cats", [images(values, datatype)], headers=served.headers(), request_id="mine")
    check(served, client, result)
    about = result.get_response()
    assert (about["model_name"], about["model_version"], about["id"]) == ("cats", "2", "mine")
    assert about["parameters"]["experiment_id"] == served.experiments[1]
    assert {"decode_ms", "wait_ms", "forward_ms"} <= about["parameters"].keys()


@pytest.mark.parametrize("datatype", ["BYTES", "UINT8", "FP32"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary answers", "JSON answers"])
def test_tensors_as_json(served: Served, client: Any, datatype: str, binary: bool) -> None:
    text = np.array([base64.b64encode(file) for file in files()], dtype=object)
    values = {"BYTES": text, "UINT8": pixels(), "FP32": FLOATS}[datatype]
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("labels", "probabilities")]
    result = client.infer("cats", [images(values, datatype, binary=False)], outputs=wanted, headers=served.headers())
    check(served, client, result)


def test_an_earlier_version_is_asked_by_its_number(served: Served, client: Any) -> None:
    result = client.infer("cats", [images(pixels(), "UINT8")], model_version="1", headers=served.headers())
    assert result.get_response()["model_version"] == "1"
    check(served, client, result, version=1)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(served: Served, client: Any, algorithm: str) -> None:
    result = client.infer(
        "cats",
        [images(pixels(), "UINT8")],
        headers=served.headers(),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    check(served, client, result)


def test_only_what_is_asked_for_comes_back(served: Served, client: Any) -> None:
    wanted = [triton.InferRequestedOutput("labels")]
    result = client.infer("cats", [images(pixels(), "UINT8")], outputs=wanted, headers=served.headers())
    assert result.as_numpy("probabilities") is None
    assert result.as_numpy("labels").shape == (2,)


def test_many_requests_at_once(served: Served) -> None:
    client = triton.InferenceServerClient(served.address, concurrency=8)
    waiting = [
        client.async_infer("cats", [images(pixels(), "UINT8")], headers=served.headers(), request_id=str(number))
        for number in range(24)
    ]
    for number, one in enumerate(waiting):
        assert one.get_result().get_response()["id"] == str(number)
    client.close()


def refused(client: Any, served: Served, given: Any, model: str = "cats", **more: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as raised:
        client.infer(model, given, headers=served.headers(), **more)
    return raised.value.status(), raised.value.message()


def test_wrong_names_are_404_in_the_protocols_own_form(served: Served, client: Any) -> None:
    good = [images(pixels(), "UINT8")]
    assert refused(client, served, good, model="dogs") == (
        "404",
        "there is no model 'dogs'; GET /api/v1/models lists them",
    )
    for model, version in (("cats", "3"), ("cats", "x"), ("ca ts", ""), ("k\u00e4tzchen", ""), ("1", "")):
        assert refused(client, served, good, model=model, model_version=version)[0] == "404"
    for ask in (client.get_model_metadata, client.get_model_config):
        with pytest.raises(InferenceServerException) as raised:
            ask("dogs", headers=served.headers())
        assert raised.value.status() == "404"


@pytest.mark.parametrize(
    ("values", "datatype", "words"),
    [
        (pixels()[:, :, :31], "UINT8", "[-1, 3, 32, 32]"),
        (pixels().transpose(0, 2, 3, 1), "UINT8", "[-1, 3, 32, 32]"),
        (pixels()[0], "UINT8", "[-1, 3, 32, 32]"),
        (pixels()[:0], "UINT8", "from 1 to 256"),
        (np.repeat(pixels(), 129, axis=0), "UINT8", "from 1 to 256"),
        (pixels().astype(np.int64), "INT64", "BYTES, UINT8 and FP32"),
        (FLOATS.astype(np.float64), "FP64", "BYTES, UINT8 and FP32"),
        (FLOATS * 2, "FP32", "from 0 to 1"),
        (FLOATS - 0.5, "FP32", "from 0 to 1"),
        (np.full_like(FLOATS, np.nan), "FP32", "from 0 to 1"),
        (np.array([[b"x"]], dtype=object), "BYTES", "[-1]"),
        (np.array([b"no image"], dtype=object), "BYTES", "image"),
    ],
)
def test_wrong_shapes_and_datatypes_are_400(
    served: Served, client: Any, values: Any, datatype: str, words: str
) -> None:
    status, message = refused(client, served, [images(np.ascontiguousarray(values), datatype)])
    assert status == "400"
    assert words in message


def test_wrong_inputs_and_outputs_are_400(served: Served, client: Any) -> None:
    other = triton.InferInput("pixels", pixels().shape, "UINT8")
    other.set_data_from_numpy(pixels())
    assert "no input 'pixels'" in refused(client, served, [other])[1]
    good = images(pixels(), "UINT8")
    assert refused(client, served, [good, good])[0] == "400"
    unknown = [triton.InferRequestedOutput("logits")]
    assert "no output 'logits'" in refused(client, served, [good], outputs=unknown)[1]
    ranked = [triton.InferRequestedOutput("probabilities", class_count=3)]
    assert "classification" in refused(client, served, [good], outputs=ranked)[1]


def test_the_broken_image_of_several_is_named(served: Served, client: Any) -> None:
    mixed = np.array([files()[0], files()[1][:-30]], dtype=object)
    status, message = refused(client, served, [images(mixed, "BYTES")])
    assert (status, "image 2" in message) == ("400", True)


def test_keys_are_asked_for_in_the_protocols_own_form(served: Served, client: Any) -> None:
    for ask in (
        client.get_server_metadata,
        lambda **more: client.get_model_metadata("cats", **more),
        lambda **more: client.infer("cats", [images(pixels(), "UINT8")], **more),
    ):
        for headers in ({}, {"X-API-Key": "wrong"}):
            with pytest.raises(InferenceServerException) as raised:
                ask(headers=headers)
            assert raised.value.status() == "401"
            assert "key" in raised.value.message()
        ask(headers=served.headers("viewer"))
        ask(headers={"X-API-Key": served.keys["submitter"]})
