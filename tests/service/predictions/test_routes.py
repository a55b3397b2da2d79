"""Predictions over HTTP; a file that is not an image is named in the error."""

import base64
import errno
import io
import itertools
import json
import threading
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.testclient import TestClient

from models.data.catalogue import get_dataset
from models.data.decoding import ImageFile
from models.errors import Unavailable
from models.evaluation.calibration import Calibration
from models.evaluation.outputs import AboutOutputs
from models.files import sha256_of
from models.networks.build import build_network
from models.networks.inputs import preprocessing_for
from models.preprocessing import Preprocessing
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store.states import ArtifactKind, Status
from models.store.tables import Experiment
from service.app import create_app
from service.http import uploads
from service.predictions import predict as predictions
from tests.service.lab_of_one import SMALL, Filled, LiveServer, client_of, epoch, settings_in
from tests.service.predictions.trained import exported

API = "/api/v1/experiments"


@pytest.fixture
def trained(filled: Filled) -> int:
    """An experiment with the weights of an untrained network, as the engine writes them."""
    return add_trained(filled)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, int]]:
    """A client of a lab with one such experiment, and its number, for tests that change nothing."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("shared")))
    trained = add_trained(filled)
    with client_of(filled.settings) as client:
        yield client, trained
    filled.store.dispose()


def add_trained(filled: Filled, tensors_of: str | None = None) -> int:
    """The same, or with the tensors of another model's network in the file."""
    spec, info = parse_spec(SMALL), get_dataset("cifar10")
    torch.manual_seed(0)
    built = parse_spec({**SMALL, "model": tensors_of}).model if tensors_of else spec.model
    network = build_network(built, num_classes=10, in_channels=3, size=32)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    about = {
        "model": spec.as_json()["model"],
        "preprocessing": preprocessing_for(spec, info).to_json(),
        "epoch": 1,
    }
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    filled.keep_bytes(claim, "graph.onnx", ArtifactKind.GRAPH, exported(json.dumps(about)))
    filled.keep(claim, ArtifactKind.WEIGHTS_BEST, tensors, {"epochal": json.dumps(about)})
    return claim.experiment_id


def picture(color: str = "red", size: tuple[int, int] = (40, 32), file_format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, file_format)
    return out.getvalue()


def post(client: TestClient, experiment_id: int, images: list[tuple[str, bytes]], query: str = "") -> Any:
    files = [("image", (name, data)) for name, data in images]
    return client.post(f"{API}/{experiment_id}/predictions{query}", files=files)


def test_many_images_are_answered_in_order_and_as_one_by_one(shared: tuple[TestClient, int]) -> None:
    client, trained = shared
    images = [(f"{color}.{kind.lower()}", picture(color, file_format=kind)) for color, kind in
              [("red", "PNG"), ("blue", "JPEG"), ("green", "WEBP"), ("white", "BMP"), ("black", "GIF")]]  # fmt: skip
    answer = post(client, trained, images, "?top_k=3")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert (document["weights"], document["epoch"]) == ("best", 1)
    assert [one["image"] for one in document["predictions"]] == [name for name, _ in images]
    assert [one["index"] for one in document["predictions"]] == [0, 1, 2, 3, 4]
    for one in document["predictions"]:
        chances = [likely["probability"] for likely in one["top"]]
        assert len(chances) == 3
        assert chances == sorted(chances, reverse=True)
        assert (one["label"], one["probability"]) == (one["top"][0]["label"], chances[0])
    alone = [post(client, trained, [image], "?top_k=3").json()["predictions"][0]["top"] for image in images]
    assert alone == [one["top"] for one in document["predictions"]]
    everything = post(client, trained, images[:1], "?top_k=1000").json()["predictions"][0]["top"]
    assert np.isclose(sum(likely["probability"] for likely in everything), 1)
    assert {likely["label"] for likely in everything} == set(get_dataset("cifar10").class_names)


def test_once_the_run_has_ended_answers_are_calibrated_and_say_whether_the_image_is_known(
    client: TestClient, filled: Filled, trained: int
) -> None:
    def ask(color: str) -> Any:
        (answer,) = post(client, trained, [("image.png", picture(color))], "?top_k=10").json()["predictions"]
        return answer

    red, white = ask("red"), ask("white")
    assert (red["calibrated_probability"], red["known"]) == (None, None)
    nearer, farther = sorted((red, white), key=lambda one: one["energy"])
    fitted = Calibration(2.0, (nearer["energy"] + farther["energy"]) / 2, 1000, 0.7, 0.9, 0.2, 0.01)
    (weights,) = filled.settings.experiments_dir.rglob("weights-best.safetensors")
    about = AboutOutputs("validation", 1, sha256_of(weights), 2, get_dataset("cifar10").class_names, fitted)
    tensors = {"logits": np.zeros((2, 10), np.float32), "labels": np.arange(2), "positions": np.arange(2)}
    claim = Namespace(experiment_id=trained, attempt=1)
    filled.keep(claim, ArtifactKind.OUTPUTS_VALIDATION, tensors, {"epochal": json.dumps(asdict(about))})

    after = ask("red")
    assert (after["label"], after["energy"]) == (red["label"], red["energy"])
    roots = np.sqrt([one["probability"] for one in red["top"]])
    assert [one["calibrated_probability"] for one in after["top"]] == pytest.approx(roots / roots.sum())
    assert after["calibrated_probability"] == after["top"][0]["calibrated_probability"]
    assert [ask("red")["known"], ask("white")["known"]] == [nearer is red, nearer is white]

    with filled.store.writing() as session:
        session.get_one(Experiment, trained).status = Status.COMPLETED
    assert client.put("/api/v1/models/cats", json={"experiment_id": trained}).status_code == 201
    outputs = {one["name"]: one["datatype"] for one in client.get("/v2/models/cats").json()["outputs"]}
    assert outputs["calibrated_probabilities"] == "FP32"
    assert outputs["known"] == "BOOL"
    encoded = [base64.b64encode(picture(color)).decode() for color in ("red", "white")]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [2], "data": encoded}
    inferred = client.post("/v2/models/cats/infer", json={"inputs": [tensor]}).json()
    found = {one["name"]: one for one in inferred["outputs"]}
    assert found["known"]["data"] == [nearer is red, nearer is white]
    by_class = {one["index"]: one["calibrated_probability"] for one in after["top"]}
    assert found["calibrated_probabilities"]["data"][:10] == pytest.approx([by_class[place] for place in range(10)])


def test_an_answer_too_long_for_the_event_loop_is_the_same(
    client: TestClient, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> Any:
        images = [(color, picture(color)) for color in ("red", "blue", "green")]
        return post(client, trained, images, "?top_k=10").json()["predictions"]

    monkeypatch.setattr(predictions, "AT_ONCE_SECONDS", 0)
    short = ask()
    monkeypatch.setattr(predictions, "CLASSES_AT_ONCE", 0)
    assert ask() == short


@pytest.mark.parametrize("broken", [b"", b"\x89PNG\r\n\x1a\n", b"<html>", picture()[:-30], b"\x00" * 1000])
def test_the_broken_image_is_named(shared: tuple[TestClient, int], broken: bytes) -> None:
    client, trained = shared
    answer = post(client, trained, [("good.png", picture()), ("../bad\u202e.png", broken)])
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "unreadable-image"
    assert problem["index"] == 1
    assert "image 2" in problem["detail"]


def test_before_there_are_weights(client: TestClient, filled: Filled, trained: int) -> None:
    assert post(client, filled.add(), [("a.png", picture())]).status_code == 409
    assert post(client, trained, [("a.png", picture())], "?weights=last").status_code == 409
    assert post(client, 999, [("a.png", picture())]).status_code == 404


def test_damaged_weights_are_not_used(client: TestClient, filled: Filled, trained: int) -> None:
    path = next(filled.settings.experiments_dir.rglob("weights-best*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert sha256_of(path)
    answer = post(client, trained, [("a.png", picture())])
    assert answer.status_code == 409
    assert "weights=last" in answer.json()["fix"]


def test_weights_that_do_not_fit_their_network_are_not_used(client: TestClient, filled: Filled) -> None:
    answer = post(client, add_trained(filled, tensors_of="wide"), [("a.png", picture())])
    assert answer.status_code == 409
    assert "do not fit its network" in answer.json()["detail"]
    assert "weights=last" in answer.json()["fix"]


def test_bodies_that_are_no_upload(shared: tuple[TestClient, int]) -> None:
    client, trained = shared
    address = f"{API}/{trained}/predictions"
    assert client.post(address, json={}).status_code == 415
    form = "multipart/form-data; boundary=x"
    for body in (b"", b"garbage", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"):
        answer = client.post(address, content=body, headers={"Content-Type": form})
        assert answer.status_code in (400, 422), body
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.post(address, content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    assert client.post(address, files={"picture": ("a.png", picture())}).status_code == 422
    both = [("image", ("a.png", picture())), ("other", ("a.png", picture()))]
    assert client.post(address, files=both).status_code == 422
    assert client.post(address, files={"image": (None, b"text")}).status_code == 422
    assert client.post(f"{address}?top_k=0", files={"image": ("a.png", picture())}).status_code == 422
    assert client.post(f"{address}?weights=worst", files={"image": ("a.png", picture())}).status_code == 422


def test_hundreds_of_parts_and_huge_fields_are_refused(shared: tuple[TestClient, int]) -> None:
    client, trained = shared
    many = [("image", (f"{n}.png", b"x")) for n in range(uploads.MAX_IMAGES + 1)]
    assert client.post(f"{API}/{trained}/predictions", files=many).status_code == 413
    huge = {"image": (None, b"x" * (uploads.MAX_FIELD_BYTES + 1))}
    assert client.post(f"{API}/{trained}/predictions", files=huge).status_code == 413
    fields = [("image", (None, b"x"))] * 20
    assert client.post(f"{API}/{trained}/predictions", files=fields).status_code == 422


def test_a_full_disk_is_said_to_be_one(client: TestClient, trained: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: UploadFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadFile, "write", write)
    large = picture(size=(2000, 1600), file_format="BMP")  # forms of less are not written to a file
    answer = post(client, trained, [("a.bmp", large)])
    assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")


def test_a_full_queue_says_when_to_come_back_and_answers_those_that_wait(
    settings: Settings, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()

    async def decode(image: ImageFile, wanted: Preprocessing) -> np.ndarray:
        while not opened.is_set():
            await anyio.sleep(0.01)
        return np.zeros((3, 32, 32), np.uint8)

    monkeypatch.setattr(predictions, "decode_isolated", decode)
    files = {"image": ("a.webp", picture("red", (1400, 1200), "WEBP"))}
    with LiveServer(create_app(settings)) as server, ThreadPoolExecutor(100) as pool, ExitStack() as stack:
        own = stack.enter_context(httpx.Client(timeout=60, limits=httpx.Limits(max_connections=110)))
        send = partial(own.post, f"{server.url}{API}/{trained}/predictions", files=files)
        sent = [pool.submit(send) for _ in range(100)]
        refused = [one.result() for one in itertools.islice(as_completed(sent), 36)]  # 64 of a caller may wait
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {answer.json()["code"] for answer in refused} == {"unavailable"}
        assert own.get(f"{server.url}/healthz").status_code == 200
        opened.set()
        assert sorted(one.result().status_code for one in sent) == [200] * 64 + [503] * 36
        assert send().status_code == 200


def test_a_small_image_does_not_wait_behind_large_ones(
    client: TestClient, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = [("a.png", picture())], [("a.bmp", picture(size=(400, 300), file_format="BMP"))]
    monkeypatch.setattr(predictions, "AT_ONCE_SECONDS", 60)
    first = post(client, trained, small).json()["predictions"]
    pieces = client.app.state.predictions.pieces  # type: ignore[attr-defined]
    pieces._max_requests = 0
    again = post(client, trained, small)
    assert (again.status_code, again.json()["predictions"]) == (200, first)
    assert post(client, trained, large).status_code == 503
    assert post(client, trained, [("b.png", picture()[:-30])]).json()["code"] == "unreadable-image"


def test_small_files_of_many_pixels_are_refused_before_they_are_decoded(client: TestClient, trained: int) -> None:
    webp = io.BytesIO()
    Image.new("RGB", (6000, 4000)).save(webp, "WEBP", lossless=True)
    answer = post(client, trained, [(f"{n}.webp", webp.getvalue()) for n in range(30)])
    assert answer.status_code == 413, answer.text
    problem = answer.json()
    assert problem["code"] == "too-large"
    assert "720 million pixels together" in problem["detail"]


def test_a_caller_has_a_budget_of_pixels(client: TestClient, trained: int) -> None:
    queue = client.app.state.predictions  # type: ignore[attr-defined]
    queue._pixels.capacity = 2 * 40 * 32
    queue._pixels.per_second = 1e-9
    assert [post(client, trained, [("a.png", picture())]).status_code for _ in range(3)] == [200, 200, 429]


def test_large_pictures_among_small_ones_are_answered_in_order(client: TestClient, trained: int) -> None:
    large = [("large.webp", picture("red", (1400, 1200), "WEBP")), ("large.jpg", picture("blue", (4000, 3000), "JPEG"))]
    small = [("red.png", picture("red")), ("blue.png", picture("blue"))]
    answer = post(client, trained, [small[0], large[0], small[1], large[1]])
    assert answer.status_code == 200, answer.text
    red, large_red, blue, large_blue = answer.json()["predictions"]
    for one, other in ((red, large_red), (blue, large_blue)):
        assert one["label"] == other["label"]
        assert np.isclose(one["probability"], other["probability"], atol=0.01)


def test_uploads_are_counted_as_they_arrive_and_each_caller_has_a_share() -> None:
    memory = uploads.UploadMemory(max_bytes=100, max_share=60)
    with memory.upload("a") as arrived, memory.upload("a") as arrived_too, memory.upload("b") as arrived_elsewhere:
        arrived(40)
        arrived_too(0)
        with pytest.raises(Unavailable, match="your uploads"):
            arrived_too(21)
        arrived_too(20)
        arrived_elsewhere(40)
        with pytest.raises(Unavailable, match="uploads in progress"):
            arrived_elsewhere(1)
    with memory.upload("a") as arrived:
        arrived(60)


def test_work_stops_when_the_client_has_gone(
    settings: Settings, filled: Filled, trained: int, monkeypatch: Any
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def decode(image: ImageFile, wanted: Preprocessing) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    monkeypatch.setattr(predictions, "decode_isolated", decode)
    with LiveServer(create_app(settings)) as server, server.connect() as connection:
        request = httpx.Request(
            "POST",
            f"{server.url}{API}/{trained}/predictions",
            files={"image": ("a.webp", picture("red", (1400, 1200), "WEBP"))},
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        connection.sendall(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        assert begun.wait(20)
        connection.close()
        assert ended.wait(20)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("filename*=utf-8''caf%C3%A9%20%E4%B8%AD.png", "caf\u00e9 \u4e2d.png"),
        ("FILENAME*=UTF-8'en'a.png", "a.png"),
        ("filename*=iso-8859-1''caf%E9.png", "caf\u00e9.png"),
        ("filename=plain.png; filename*=utf-8''caf%C3%A9.png", "caf\u00e9.png"),
        ("filename*0*=utf-8''caf%C3%A9; filename*1=.png", "caf\u00e9.png"),
        ("filename*=utf-8''say%20%22a%5Cb%22.png", 'say "a\\b".png'),
        ("filename*=nonsense", "nonsense"),
        ("filename*=no-such-charset''a.png", "a.png"),
        ("filename*=utf-8''", "image 1"),
        ("filename=", "image 1"),
    ],
)
def test_a_part_is_a_file_in_whatever_way_its_name_is_written(
    shared: tuple[TestClient, int], parameters: str, name: str
) -> None:
    client, trained = shared
    head = f'--x\r\nContent-Disposition: form-data; name="image"; {parameters}\r\n\r\n'.encode()
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post(f"{API}/{trained}/predictions", content=head + picture() + b"\r\n--x--\r\n", headers=form)
    assert answer.status_code == 200, answer.text
    assert [found["image"] for found in answer.json()["predictions"]] == [name]
