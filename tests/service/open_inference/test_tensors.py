"""Requests that no client library would write, and the answers' bytes."""

import base64
import gzip
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import update
from starlette.testclient import TestClient

from models.errors import EpochalError
from models.settings import Settings
from models.store import Status, runs
from models.store.tables import Artifact, Experiment
from service.http.errors import BadRequest
from service.open_inference.tensors import MAX_JSON_BYTES, OUTPUTS, Output, read_inference, write_answer
from tests.service.lab_of_one import Filled, client_of
from tests.service.open_inference.conftest import Served, files, pixels
from tests.service.predictions.pictures import COLOUR, GRAY, GRAY_FOR_THREE, encode, gray_gradient
from tests.service.predictions.trained import Lab

ONE = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 32, 32], "data": [0] * 3072}


def body(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**ONE, **changes}.items() if value is not None}


def binary(datatype: str, shape: list[int], data: bytes, size: Any = None) -> tuple[bytes, str]:
    """A body with bytes behind its JSON, and the JSON's length."""
    tensor = {"name": "images", "datatype": datatype, "shape": shape}
    size = len(data) if size is None else size
    head = body({**tensor, "parameters": {"binary_data_size": size}})
    return head + data, str(len(head))


def test_nested_and_flat_data_are_the_same() -> None:
    flat = read_inference(body(changed(data=list(range(256)) * 12)), None, COLOUR)
    nested = np.array(list(range(256)) * 12).reshape(1, 3, 32, 32).tolist()
    assert read_inference(body(changed(data=nested)), None, COLOUR).images == flat.images
    zero_to_one = read_inference(body(changed(datatype="FP32", data=[0, 1.0, 0.5] * 1024)), None, COLOUR)
    levels = read_inference(body(changed(data=[0, 255, 128] * 1024)), None, COLOUR)
    assert zero_to_one.images == levels.images


def test_null_is_as_good_as_left_out_where_a_member_is_optional() -> None:
    """Clients that write their own classes as JSON send null for what was not set."""
    tensor = {**ONE, "parameters": None}
    plain = read_inference(body(ONE, outputs=[{"name": "labels"}]), None, COLOUR)
    nulls = body(tensor, id=None, parameters=None, outputs=[{"name": "labels", "parameters": None}])
    assert read_inference(nulls, None, COLOUR) == plain
    flags = body(ONE, outputs=[{"name": "labels", "parameters": {"binary_data": None}}])
    assert read_inference(flags, None, COLOUR) == plain
    assert read_inference(body(ONE, outputs=None), None, COLOUR) == read_inference(body(ONE), None, COLOUR)


def test_what_sees_gray_takes_one_channel() -> None:
    for wanted in (GRAY, GRAY_FOR_THREE):
        gray = changed(shape=[1, 1, 32, 32], data=[7] * 1024)
        assert len(read_inference(body(gray), None, wanted).images) == 1
        with pytest.raises(BadRequest, match=r"\[-1, 1, 32, 32\]"):
            read_inference(body(ONE), None, wanted)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be an object"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"inputs": NaN}', "holds NaN"),
        (b"{}", "'inputs' is no list"),
        (body(), "'inputs' is 0 entries"),
        (body(1), "'inputs'"),
        (body(ONE, id=7), "'id'"),
        (body(ONE, id="\ud800"), "'id'"),
        (body(ONE, parameters=[]), "'parameters'"),
        (body(ONE, parameters={"binary_data_output": 1}), "true or false"),
        (body(ONE, outputs={}), "'outputs'"),
        (body(ONE, outputs=[1]), "'outputs'"),
        (body(ONE, outputs=[{"name": "labels"}, {"name": "labels"}]), "twice"),
        (body(changed(name=None)), "no input None"),
        (body(changed(name=["x"])), "no input"),
        (body(changed(datatype=None)), "datatype"),
        (body(changed(datatype=["UINT8"])), "datatype"),
        (body(changed(shape=None)), "shape"),
        (body(changed(shape="1,3,32,32")), "shape"),
        (body(changed(shape=[1, 3, 32, 32.0])), "shape"),
        (body(changed(shape=[True, 3, 32, 32])), "shape"),
        (body(changed(shape=[-1, 3, 32, 32])), "from 1 to 256"),
        (body(changed(shape=[2**70, 3, 32, 32])), "from 1 to 256"),
        (body(changed(shape=[2, 3, 32, 32])), "holds 3,072 elements"),
        (body(changed(data=None)), "neither 'data'"),
        (body(changed(data="AAAA")), "neither 'data'"),
        (body(changed(data=[])), "holds 0 elements"),
        (body(changed(data=[256] * 3072)), "from 0 to 255"),
        (body(changed(data=[-1] * 3072)), "from 0 to 255"),
        (body(changed(data=[0.5] * 3072)), "from 0 to 255"),
        (body(changed(data=[2**80] * 3072)), "must be numbers"),
        (body(changed(data=["0"] * 3072)), "must be numbers"),
        (body(changed(data=[True] * 3072)), "must be numbers"),
        (body(changed(data=[0] * 3071 + [True])), "must be numbers"),
        (body(changed(datatype="FP32", data=[0.5] * 3071 + [False])), "must be numbers"),
        (
            body(changed(datatype="FP32", data=[[[[0.5] * 32] * 32] * 2 + [[[True] + [0.5] * 31] * 32]])),
            "must be numbers",
        ),
        (body(changed(datatype="FP32", data=[0.5] * 3071 + ["0.5"])), "must be numbers"),
        (body(changed(datatype="FP32", data=[0.5] * 3071 + [None])), "must be numbers"),
        (body(changed(datatype="FP32", data=[0.5] * 3071 + [[0.5]])), "must be numbers"),
        (body(changed(datatype="FP32", data=[0.5] * 3071 + [1.5])), "from 0 to 1"),
        (body(changed(datatype="FP32", data=[0.5] * 3071 + [-0.5])), "from 0 to 1"),
        (body(changed(datatype="FP32", data=[0.5] * 3071 + [2])), "from 0 to 1"),
        (body(changed(datatype="FP32", data=[2**70] + [0.5] * 3071)), "must be"),
        (body(changed(datatype="FP32")).replace(b"[0, ", b"[1e999, "), "from 0 to 1"),
        (body(changed(data=[[[[0] * 32] * 32] * 2 + [[[0] * 32] * 31 + [[0] * 31]]])), "must be numbers"),
        (body(changed(data=[None] * 3072)), "must be numbers"),
        (body(changed(data=[[0], [0, 1]])), "must be numbers"),
        (body(changed(data=[[0] * 1536] * 2)), "nested as [2, 1536]"),
        (body(changed(datatype="BYTES", shape=[1], data=["not base64!"])), "element 0"),
        (body(changed(datatype="BYTES", shape=[1], data=[7])), "element 0"),
        (body(changed(datatype="BYTES", shape=[2], data=["AAAA"])), "holds 1 elements"),
        (body(changed(parameters={"binary_data_size": 0})), "both"),
        (body(changed(data=None, parameters={"binary_data_size": 3072})), "0 bytes follow"),
        (b" " * (MAX_JSON_BYTES + 1), "binary data"),
    ],
)
def test_what_is_wrong_is_said(text: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read_inference(text, None, COLOUR)
    assert words in f"{raised.value.detail} {raised.value.fix}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (binary("UINT8", [1, 3, 32, 32], bytes(3071)), "its shape takes 3,072"),
        (binary("FP32", [1, 3, 32, 32], bytes(3072)), "its shape takes 12,288"),
        (binary("UINT8", [1, 3, 32, 32], bytes(3072), size=3071), "'binary_data_size' is 3071"),
        (binary("UINT8", [1, 3, 32, 32], bytes(3072), size="3072"), "'binary_data_size' is '3072'"),
        (binary("UINT8", [1, 3, 32, 32], bytes(3072), size=-1), "'binary_data_size' is -1"),
        (binary("BYTES", [1], b"\5\0\0\0abcd"), "element 0 of 'images' says 5 bytes"),
        (binary("BYTES", [1], b"\5\0\0"), "ends within the length of element 0"),
        (binary("BYTES", [2], b"\1\0\0\0a"), "holds 1 elements"),
        (binary("BYTES", [1], b"\0\0\0\0" * 100_000), "elements"),
        ((body(ONE) + b"x", str(len(body(ONE)))), "1 bytes follow"),
        ((body(ONE), "-1"), "Inference-Header"),
        ((body(ONE), "9" * 30), "Inference-Header"),
        ((body(ONE), str(len(body(ONE)) + 1)), "Inference-Header"),
    ],
)
def test_what_is_wrong_with_bytes_behind_the_json_is_said(given: tuple[bytes, str], words: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read_inference(*given, COLOUR)
    assert words in raised.value.detail


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["BYTES", "FP32"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from([*ONE, "parameters"])


@given(st.dictionaries(keys, plain, max_size=3), plain, plain, st.binary(max_size=9), st.none() | st.integers(0, 99))
def test_no_request_whatever_is_a_fault_of_the_server(
    changes: dict[str, Any], outputs: Any, identifier: Any, rest: bytes, length: int | None
) -> None:
    text = body({**ONE, **changes}, outputs=outputs, id=identifier) + rest
    try:
        found = read_inference(text, None if length is None else str(length), COLOUR)
    except EpochalError as error:
        assert error.status == 400, error.detail  # noqa: PT017 (an answer is as good)
    else:
        assert len(found.images) == 1


def test_answers_are_written_as_the_binary_extension_says() -> None:
    probabilities = np.array([[0.25, 0.75]], np.float32)
    wanted = [Output("labels", binary=True), Output("probabilities", binary=False)]
    content, length = write_answer({"model_name": "m"}, probabilities, ["caf\u00e9"], wanted)
    assert length is not None
    assert json.loads(content[:length]) == {
        "model_name": "m",
        "outputs": [
            {"name": "labels", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}},
            {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]},
        ],
    }
    assert content[length:] == struct.pack("<I", 5) + "caf\u00e9".encode()
    content, length = write_answer({}, probabilities, ["a"], [Output(name, binary=False) for name in OUTPUTS])
    assert (length, [one["name"] for one in json.loads(content)["outputs"]]) == (None, list(OUTPUTS))


def post(served: Served, content: bytes, path: str = "/v2/models/cats/infer", **headers: str) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", content=content, headers={**served.headers(), **headers})


def test_every_refusal_below_v2_has_the_protocols_own_form(served: Served) -> None:
    good = body({"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(files()[0]).decode()]})
    for answer, status in (
        (post(served, good), 200),
        (post(served, b"{"), 400),
        (post(served, good, "/v2/models/cats/infer?x=1"), 400),
        (post(served, good, "/v2/models/cats/versions/9/infer"), 404),
        (post(served, good, "/v2/models/cats/versions/-1/infer"), 404),
        (post(served, good, "/v2/models/cats/"), 404),
        (post(served, good, "/v2/nothing"), 404),
        (post(served, good, "/v2"), 405),
        (post(served, good, **{"Content-Encoding": "br"}), 400),
        (post(served, good, **{"Content-Encoding": "gzip"}), 400),
        (post(served, gzip.compress(good)[:-9], **{"Content-Encoding": "gzip"}), 400),
        (post(served, gzip.compress(bytes(70_000_000)), **{"Content-Encoding": "gzip"}), 413),
        (post(served, bytes(65_000_000)), 413),
        (post(served, good, Origin="http://elsewhere.example"), 403),
        (httpx.get(f"{served.url}/v2/models/cats", headers={"Accept": "text/html"}), 401),
    ):
        assert answer.status_code == status, (answer.request.url, answer.text)
        if status != 200:
            assert answer.headers["content-type"] == "application/json"
            assert list(answer.json()) == ["error"]
            assert len(answer.json()["error"]) > 10


def test_tensors_of_pixels_and_files_of_the_same_pixels_get_one_answer(served: Served) -> None:
    elements = b"".join(struct.pack("<I", len(file)) + file for file in files())
    found = []
    for datatype, shape, data in (
        ("BYTES", [2], elements),
        ("UINT8", [2, 3, 32, 32], pixels().tobytes()),
        ("FP32", [2, 3, 32, 32], (pixels() / 255).astype("<f4").tobytes()),
    ):
        content, length = binary(datatype, shape, data)
        answer = post(served, content, **{"Inference-Header-Content-Length": length})
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["outputs"])
    assert found[0] == found[1] == found[2]


def test_a_full_queue_and_damaged_weights_have_that_form_too(
    client: TestClient, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Lab(filled.store, filled.settings).train()
    with filled.store.writing() as session:
        runs.settle(session, trained.claim, Status.COMPLETED)
    made = client.put("/api/v1/models/cats", json={"experiment_id": trained.id})
    assert made.status_code == 201, made.text
    content, length = binary("UINT8", [2, 3, 32, 32], pixels().tobytes())
    headers = {"Inference-Header-Content-Length": length}
    assert client.post("/v2/models/cats/infer", content=content, headers=headers).status_code == 200
    with monkeypatch.context() as patched:
        patched.setattr(client.app.state.predictions.pieces, "_max_requests", 0)  # type: ignore[attr-defined]
        patched.setattr("service.predictions.predict.AT_ONCE_SECONDS", 0.0)  # such a network is quick on some machines
        full = client.post("/v2/models/cats/infer", content=content, headers=headers)
    assert (full.status_code, full.headers["retry-after"], list(full.json())) == (503, "1", ["error"])
    with filled.store.writing() as session:
        session.execute(update(Artifact).values(path=f"{trained.id}/gone", sha256="0" * 64))
        session.execute(update(Experiment).values(revision=Experiment.revision + 1))
    for answer in (
        client.post("/v2/models/cats/infer", content=content, headers=headers),
        client.get("/v2/models/cats/ready"),
        client.get("/v2/models/cats"),
    ):
        assert answer.status_code == 409, answer.text
        assert "version 1 of model 'cats'" in answer.json()["error"]


def test_a_lab_behind_a_path_prefix_is_asked_below_it(settings: Settings) -> None:
    with client_of(settings.model_copy(update={"root_path": "/epochal"})) as client:
        for path in ("/epochal/v2/health/live", "/v2/health/ready", "/epochal/v2"):
            assert client.get(path).status_code == 200, path
        missing = client.get("/epochal/v2/models/dogs")
    assert (missing.status_code, missing.json()) == (
        404,
        {"error": "there is no model 'dogs'; GET /epochal/api/v1/models lists them"},
    )


def test_a_model_of_gray_images_takes_one_channel(client: TestClient, filled: Filled) -> None:
    trained = Lab(filled.store, filled.settings).train(dataset="fashion-mnist")
    with filled.store.writing() as session:
        runs.settle(session, trained.claim, Status.COMPLETED)
    assert client.put("/api/v1/models/clothes", json={"experiment_id": trained.id}).status_code == 201
    shapes = [one["shape"] for one in client.get("/v2/models/clothes").json()["inputs"]]
    assert shapes == [[-1], [-1, 1, 28, 28], [-1, 1, 28, 28]]
    gray = gray_gradient()[:28, :28]
    file = base64.b64encode(encode(Image.fromarray(gray), "PNG")).decode()
    found = [
        client.post("/v2/models/clothes/infer", content=body({"name": "images", **tensor})).json()["outputs"]
        for tensor in (
            {"datatype": "BYTES", "shape": [1], "data": [file]},
            {"datatype": "UINT8", "shape": [1, 1, 28, 28], "data": gray.ravel().tolist()},
            {"datatype": "FP32", "shape": [1, 1, 28, 28], "data": (gray / 255).ravel().tolist()},
        )
    ]
    assert found[0] == found[1] == found[2]
