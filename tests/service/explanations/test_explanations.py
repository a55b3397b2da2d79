"""Explanations, feature maps and timelines over HTTP, with a network of which it is known where it looks."""

import base64
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from models.files import sha256_of
from models.measurements import Question
from models.networks.inputs import network_input
from models.store import artifacts, runs
from models.store.states import ArtifactKind, Status
from models.store.tables import Experiment, Measurement
from models.torchvision_compat import torchvision
from tests.service.explanations.conftest import API, Planted
from tests.service.explanations.planted import MODEL, rank_correlation, share_in_corner
from worker.explain import as_maps, explain, grad_cam, load_network

METHODS = ("occlusion", "grad_cam", "integrated_gradients")


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
    assert ("maps of 1 \u00d7 1." in other.text, "same everywhere" in other.text) == (True, False)
    wrong = planted.post(f"{address}?layer=feature.0")
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["nearest"] == "features.0"


def test_outputs_above_what_16_bits_hold_are_drawn(planted: Planted, worker: list[str]) -> None:
    large = planted.lab.train(MODEL, seed=5)
    with torch.no_grad():
        large.network.get_parameter("features.0.weight").mul_(1e6)
    planted.lab.save(large)
    with planted.lab.store.writing() as session:
        session.get_one(Experiment, large.id).layers = [
            {"name": name, "type": "Conv2d", "output_shape": [], "kernel_shape": None, "parameters": 0}
            for name in ("features.0", "gone")
        ]
    answer = planted.post(f"{large.id}/feature_maps?layer=features.0")
    assert answer.status_code == 200, answer.text
    unknown = planted.post(f"{large.id}/feature_maps?layer=gone")
    assert (unknown.status_code, "no layer 'gone'" in unknown.text) == (422, True), "what the worker refuses"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ((1, 6, 4, 4), (6, 4, 4)),
        ((1, 4, 4, 6), (6, 4, 4)),
        ((1, 4, 4, 4), (4, 4, 4)),
        ((1, 10), (10, 1, 1)),
        ((1, 17, 6), (6, 4, 4)),
        ((1, 21, 6), (6, 4, 4)),
        ((1, 16, 6), (6, 4, 4)),
        ((1, 111, 6), None),
        ((4, 16, 6), None),
        ((1, 2, 3, 4, 5), None),
    ],
)
def test_channels_may_come_last_and_tokens_are_patches(
    output: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    values = torch.arange(math.prod(output)).reshape(output)
    maps = as_maps(values)
    assert (maps if maps is None else tuple(maps.shape)) == expected
    assert as_maps("nothing") is None
    if output == (1, 17, 6):
        assert maps is not None
        assert torch.equal(maps[2].flatten(), values[0, 1:, 2]), "the first token is of the class"
        assert torch.equal(as_maps((values, None)), maps), "attention gives its weights too"


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
    with lab.store.writing() as session:
        session.get_one(Experiment, broken.id).layers = session.get_one(Experiment, planted.trained.id).layers
        runs.settle(session, broken.claim, Status.COMPLETED)
    made = planted.client.put("/api/v1/models/broken", json={"experiment_id": broken.id})
    assert made.status_code == 201, made.text
    methods = [f"explanations?method={method}" for method in METHODS]
    addresses = [f"{API}/{broken.id}/{name}" for name in ("predictions", *methods, "feature_maps", "timeline")]
    for address in (*addresses, "/api/v1/models/broken/predictions"):
        answer = planted.client.post(address, files={"image": ("a.png", planted.file)})
        assert (answer.status_code, "no finite prediction" in answer.text) == (409, True), address
        assert answer.headers["content-type"] == "application/problem+json"
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 3, 32, 32], "data": planted.pixels.ravel().tolist()}
    inferred = planted.client.post("/v2/models/broken/infer", json={"inputs": [tensor]})
    assert (inferred.status_code, list(inferred.json())) == (409, ["error"])
    assert "no finite prediction" in inferred.json()["error"]


@pytest.mark.parametrize(
    ("model", "last"),
    [
        ({"name": "squeezenet1_1", "input_size": 64, "pretrained": False}, "features"),
        ({"name": "resnet18", "pretrained": False}, "layer3"),
        ("fast_resnet", "stages"),
    ],
)
def test_gradients_are_right_on_other_families(planted: Planted, model: Any, last: str) -> None:
    """Integrated gradients add up to the logit's change (Sundararajan et al. 2017, completeness); Grad-CAM by hand."""
    trained = planted.lab.train(model, seed=7)
    record = f"{trained.id}/weights-best.safetensors"
    question: Question = {
        "weights": record,
        "sha256": sha256_of(planted.lab.settings.experiments_dir / record),
        "pixels": base64.b64encode(planted.pixels.tobytes()).decode(),
        "target": 3,
    }

    def explained(method: str) -> np.ndarray:
        answer = explain({**question, "method": method}, planted.lab.settings)
        return np.frombuffer(base64.b64decode(answer["values"]), np.float32).reshape(answer["shape"])

    seen = trained.preprocessing
    image = network_input(torch.from_numpy(planted.pixels[None]), seen)
    with torch.no_grad():
        logits = trained.network(torch.cat([image, torch.zeros_like(image)]))[:, 3]
    gradients = explained("integrated_gradients")
    assert gradients.shape == (32, 32)
    change = float(logits[0] - logits[1])
    assert float(gradients.sum()) == pytest.approx(change, rel=0.1, abs=0.02 * float(np.abs(gradients).sum()))

    settings = planted.lab.settings
    network, _, _ = load_network(settings.experiments_dir / record, question["sha256"], settings.cache_dir)
    by_hand = enlarged(grad_cam_by_hand(network, image, 3, last, lambda output: output[0]), 32)
    assert np.allclose(explained("grad_cam"), by_hand, atol=1e-5 * max(1.0, float(by_hand.max())))


def grad_cam_by_hand(
    network: nn.Module, images: torch.Tensor, target: int, layer: str, form: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Grad-CAM at a layer whose outputs `form` makes (C, h, w) of: (h, w)."""
    seen: list[torch.Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))
    (slope,) = torch.autograd.grad(network(images)[0, target], seen)
    hook.remove()
    return (form(slope).mean(dim=(1, 2), keepdim=True) * form(seen[0])).sum(dim=0).relu().detach()


def enlarged(maps: torch.Tensor, side: int) -> np.ndarray:
    """(h, w) as (side, side)."""
    return functional.interpolate(maps[None, None], (side, side), mode="bilinear")[0, 0].numpy()


@pytest.mark.parametrize(
    ("network", "side", "last", "form"),
    [
        pytest.param(
            lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 1], [4, 4], num_classes=2),
            16,
            "norm",
            lambda output: output[0].movedim(2, 0),
            id="channels last",
        ),
        pytest.param(
            lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 1], [4, 4], num_classes=2),
            8,
            "features.1",
            lambda output: output[0].movedim(2, 0),
            id="channels last, then a single place",
        ),
        pytest.param(
            lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=2),
            32,
            "encoder.layers.encoder_layer_1.ln_1",
            lambda output: output[0, 1:].T.reshape(16, 4, 4),
            id="the head sees one token",
        ),
    ],
)
def test_grad_cam_of_transformers_is_of_the_last_places_that_matter(
    network: Callable[[], nn.Module], side: int, last: str, form: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(1)
    made = network().eval()
    with torch.no_grad():
        for weights in made.parameters():  # torchvision's heads begin at zero
            weights += 0.1 * torch.randn_like(weights)
    images = torch.randn(1, 3, side, side)
    largest = 0.0
    for target in (0, 1):
        by_hand = enlarged(grad_cam_by_hand(made, images, target, last, form), side)
        assert np.allclose(grad_cam(made, images, target).numpy(), by_hand, rtol=1e-4, atol=1e-7)
        largest = max(largest, float(np.ptp(by_hand)))
    assert largest > 0, "one of the classes is supported somewhere"
