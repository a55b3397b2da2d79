"""Explanations, feature maps and timelines over HTTP, with a network of which it is known where it looks."""

import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from starlette.testclient import TestClient

from models.data.catalogue import get_dataset
from models.errors import EpochalError
from models.files import sha256_of
from models.networks.describe import describe
from models.spec.parse import parse_spec
from models.store import artifacts, measurements, workers
from models.store.states import ArtifactKind, MeasurementKind
from models.store.tables import Experiment, Measurement
from tests.service.explanations.planted import MODEL, as_png, images, planted_lab, rank_correlation, share_in_corner
from tests.service.lab_of_one import client_of
from tests.service.predictions.trained import Lab, Trained
from worker.explain import explain

API = "/api/v1/experiments"
METHODS = ("occlusion", "grad_cam", "integrated_gradients")


class Planted:
    """The lab, its client, its two networks, and one image that has the red corner."""

    def __init__(self, lab: Lab, client: TestClient, trained: Trained, random: Trained) -> None:
        self.lab, self.client, self.trained, self.random = lab, client, trained, random
        pixels, labels = images(20, seed=999)
        self.pixels = pixels[labels == 0][0]
        self.file = as_png(self.pixels)

    def post(self, address: str, file: bytes | None = None, **options: Any) -> Any:
        """POST one image."""
        return self.client.post(f"{API}/{address}", files={"image": ("a.png", file or self.file)}, **options)

    def map_of(self, trained: Trained, method: str) -> np.ndarray:
        """The numbers of an explanation of class 0."""
        answer = self.post(f"{trained.id}/explanations?method={method}&target=0&format=json")
        assert answer.status_code == 200, answer.text
        return np.array(answer.json()["map"])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """Made once."""
    lab, trained, random = planted_lab(tmp_path_factory.mktemp("planted"))
    layers = describe(parse_spec({"model": MODEL}), get_dataset("cifar10")).layers
    with lab.store.writing() as session:
        session.get_one(Experiment, trained.id).layers = layers  # type: ignore[assignment]
    with client_of(lab.settings) as client:
        yield Planted(lab, client, trained, random)
    lab.store.dispose()


@pytest.fixture
def worker(planted: Planted) -> Iterator[list[str]]:
    """What a worker does with explanations, without its processes; the reasons that it gave."""
    stop, reasons, store = threading.Event(), list[str](), planted.lab.store
    with store.writing() as session:
        workers.beat(session, "worker-1", host="lab", pid=1, device="cpu")

    def work() -> None:
        while not stop.wait(0.02):
            with store.writing() as session:
                asked = measurements.claim_next(session, "worker-1")
            if asked is None:
                continue
            assert asked.kind is MeasurementKind.EXPLANATION
            try:
                result = explain(asked.options, planted.lab.settings)
            except EpochalError as error:
                reasons.append(error.detail)
                with store.writing() as session:
                    measurements.fail(session, asked.id, error.detail)
            else:
                with store.writing() as session:
                    measurements.finish(session, asked.id, json.loads(json.dumps(result)))

    thread = threading.Thread(target=work)
    thread.start()
    yield reasons
    stop.set()
    thread.join()
    with store.writing() as session:
        workers.leave(session, "worker-1")


@pytest.mark.parametrize("method", METHODS)
def test_a_network_trained_to_look_at_a_corner_is_shown_to_look_there(
    planted: Planted, worker: list[str], method: str
) -> None:
    assert share_in_corner(planted.map_of(planted.trained, method)) > 0.5  # of 14% of the image


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_a_randomised_network_is_another_one(planted: Planted, worker: list[str], method: str) -> None:
    """Adebayo et al. 2018, Sanity Checks for Saliency Maps (arXiv 1810.03292)."""
    found, random = (planted.map_of(one, method) for one in (planted.trained, planted.random))
    assert abs(rank_correlation(found, random)) < 0.5


def test_an_explanation_is_a_picture_or_numbers(planted: Planted) -> None:
    address = f"{planted.trained.id}/explanations"
    picture = planted.post(address)
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).width > 900
    assert planted.post(address, headers={"Accept": "image/svg+xml"}).content.startswith(b"<?xml")
    found = planted.post(f"{address}?target=bird", headers={"Accept": "application/json"}).json()
    assert (found["method"], found["target"], found["target_index"]) == ("occlusion", "bird", 2)
    assert found["label"] == "airplane"
    assert (found["width"], found["height"], len(found["map"]), len(found["map"][0])) == (32, 32, 32, 32)
    answered = planted.post(f"{planted.trained.id}/predictions?top_k=10").json()["predictions"][0]
    likely = {one["label"]: one["probability"] for one in answered["top"]}
    assert found["probability"] == pytest.approx(likely["bird"])
    assert found["logit"] == pytest.approx(np.log(likely["bird"]) - answered["energy"])
    assert planted.post(address, headers={"Accept": "text/csv"}).status_code == 406


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("?method=magic", 422, "grad_cam"),
        ("?target=unicorn", 422, "unicorn"),
        ("?target=10", 422, "0 to 9"),
        ("?weights=last", 409, "no last weights"),
        ("?format=gif", 422, "png"),
        ("?layer=features.0", 422, "layer"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_a_reason(
    planted: Planted, query: str, status: int, word: str
) -> None:
    answer = planted.post(f"{planted.trained.id}/explanations{query}")
    assert answer.status_code == status
    assert word in answer.text


def test_one_image_is_looked_at_in_a_request(planted: Planted) -> None:
    two = [("image", ("a.png", planted.file)), ("image", ("b.png", planted.file))]
    answer = planted.client.post(f"{API}/{planted.trained.id}/explanations", files=two)
    assert (answer.status_code, "2 images" in answer.text) == (422, True)
    assert planted.post("9999/explanations").status_code == 404
    broken = planted.post(f"{planted.trained.id}/timeline", file=b"GIF89a nothing")
    assert (broken.status_code, broken.json()["code"], "a.png" in broken.text) == (422, "unreadable-image", True)


@pytest.mark.parametrize("address", ["explanations?method=grad_cam", "feature_maps"])
def test_without_a_worker_the_answer_says_so(planted: Planted, address: str) -> None:
    answer = planted.post(f"{planted.trained.id}/{address}")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "worker" in answer.json()["detail"]


def test_nothing_is_left_of_a_request_to_a_worker(planted: Planted, worker: list[str]) -> None:
    assert planted.post(f"{planted.trained.id}/explanations?method=grad_cam").status_code == 200
    with planted.lab.store.reading() as session:
        assert session.query(Measurement).count() == 0


def test_feature_maps_are_the_layers_outputs(planted: Planted, worker: list[str]) -> None:
    address = f"{planted.trained.id}/feature_maps"
    first = planted.post(address)
    assert first.headers["content-type"] == "image/png"
    assert planted.post(f"{address}?layer=0").content == first.content  # the first layer is a convolution
    other = planted.post(f"{address}?layer=classifier.2&format=svg")
    assert other.headers["content-type"] == "image/svg+xml"
    wrong = planted.post(f"{address}?layer=feature.0")
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["nearest"] == "features.0"


def keep_epoch(planted: Planted, epoch: int, scale: float) -> None:
    """As the worker keeps an epoch's weights, with the head's weights times a number: -1 turns the answer round."""
    trained = planted.trained
    tensors = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    for name in ("classifier.2.weight", "classifier.2.bias"):
        tensors[name] *= scale
    half = {name: t.half() if t.ndim > 1 else t for name, t in tensors.items()}
    about = {
        "model": trained.claim.spec.model.model_dump(mode="json"),
        "preprocessing": trained.preprocessing.to_json(),
        "epoch": epoch,
    }
    path = trained.path / f"weights-epoch-{epoch}.safetensors"
    path.write_bytes(save(half, {"epochal": json.dumps(about)}))
    place = path.relative_to(planted.lab.settings.experiments_dir).as_posix()
    with planted.lab.store.writing() as session:
        artifacts.record(
            session, trained.claim, ArtifactKind.WEIGHTS_EPOCH, epoch, place, sha256_of(path), path.stat().st_size
        )


def test_a_timeline_tells_when_an_image_was_learned_and_forgotten(planted: Planted) -> None:
    address = f"{planted.trained.id}/timeline"
    alone = planted.post(address).json()
    assert [one["epoch"] for one in alone["epochs"]] == [3], "an older run has its best weights only"
    for epoch, scale in ((1, -1.0), (2, 1.0), (5, -1.0), (6, 1.0), (9, 0.5)):
        keep_epoch(planted, epoch, scale)
    found = planted.post(address).json()
    assert (found["target"], found["target_index"]) == ("airplane", 0)
    assert [one["epoch"] for one in found["epochs"]] == [1, 2, 3, 5, 6, 9]
    assert [one["is_target"] for one in found["epochs"]] == [False, True, True, False, True, True]
    assert (found["learned_at"], found["forgotten_at"], found["kept_from"]) == (2, [5], 6)
    exact = planted.post(f"{planted.trained.id}/predictions").json()["predictions"][0]["probability"]
    by_epoch = {one["epoch"]: one["target_probability"] for one in found["epochs"]}
    assert by_epoch[3] == pytest.approx(exact, abs=1e-7)
    assert by_epoch[2] == pytest.approx(exact, abs=2e-3), "16 bits are kept of other epochs"
    other = planted.post(f"{address}?target=automobile").json()
    assert other["learned_at"] != found["learned_at"]
    picture = planted.post(f"{address}?format=png")
    assert Image.open(io.BytesIO(picture.content)).size[0] > 1000
    assert planted.post(address, headers={"Accept": "image/svg+xml"}).status_code == 200


def test_weights_that_are_not_finite_are_a_conflict(planted: Planted, worker: list[str]) -> None:
    lab = planted.lab
    broken = lab.train(MODEL, seed=4)
    with torch.no_grad():
        next(iter(broken.network.parameters())).fill_(float("nan"))
    lab.save(broken)
    for address in ("explanations", "explanations?method=integrated_gradients", "timeline"):
        answer = planted.post(f"{broken.id}/{address}")
        assert (answer.status_code, "finite" in answer.text) == (409, True)
