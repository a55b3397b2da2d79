"""What the best weights answered on a split, as figures and pictures, with reasons where there is nothing."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.data.dataset import load_dataset
from models.data.splits import split_indices
from models.evaluation.calibration import calibrate
from models.evaluation.outputs import AboutOutputs, Outputs, SplitName
from models.files import sha256_of
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Status, artifacts
from models.store.runs import Claim
from models.store.states import ArtifactKind
from service.evaluation.draw_confusion import legend_of
from tests.service.lab_of_one import SMALL, Filled, epoch

API = "/api/v1/experiments"
TESTED = {"train_limit": 200, "val_limit": 100, "evaluate_test": True}
CATS, DOGS, SHIPS = 3, 5, 8


def held_out() -> np.ndarray:
    """The indices of the 100 validation images among CIFAR-10's training images."""
    dataset = load_dataset("cifar10", Settings())
    return split_indices(dataset.train_labels, parse_spec(SMALL).dataset)[1]


def outputs_of(split: SplitName, labels: np.ndarray) -> Outputs:
    """Right about everything but cats, which are surely dogs, and one ship, which is a cat."""
    logits = np.full((len(labels), 10), -1.0, np.float32)
    chosen = np.where(labels == CATS, DOGS, labels)
    ship = np.flatnonzero(labels == SHIPS)[0]
    chosen[ship] = CATS
    logits[np.arange(len(labels)), chosen] = np.where(labels == CATS, 9.0, 4.0)
    logits[ship, CATS] = 30.0
    names = load_dataset("cifar10", Settings()).info.class_names
    fitted = calibrate(logits, labels) if split == "validation" else None
    about = AboutOutputs(split, 2, "ab" * 32, len(labels), names, fitted)
    return Outputs(about, logits, labels, np.arange(len(labels), dtype=np.int64))


def keep(filled: Filled, claim: Claim, outputs: Outputs) -> Path:
    """The worker leaves them."""
    kind = ArtifactKind(f"outputs-{outputs.about.split}")
    place = f"{claim.experiment_id}/attempt-{claim.attempt}/{kind}.safetensors"
    path = filled.settings.experiments_dir / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(outputs.to_bytes())
    with filled.store.writing() as session:
        artifacts.record(session, claim, kind, 0, place, sha256_of(path), path.stat().st_size)
    return path


@pytest.fixture
def trained(filled: Filled) -> int:
    """A completed experiment with outputs on both splits."""
    claim = filled.start(filled.add(dataset=TESTED))
    filled.append(claim, [epoch(1), epoch(2), epoch(3)])
    dataset = load_dataset("cifar10", Settings())
    keep(filled, claim, outputs_of("validation", dataset.train_labels[held_out()]))
    keep(filled, claim, outputs_of("test", dataset.test_labels[:500].copy()))
    filled.settle(claim)
    return claim.experiment_id


def get(client: TestClient, address: str) -> dict:
    answer = client.get(f"{API}/{address}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_confusion_matrix_and_its_figures(client: TestClient, trained: int) -> None:
    found = get(client, f"{trained}/confusion")
    labels = load_dataset("cifar10", Settings()).train_labels[held_out()]
    cats, ships = int((labels == CATS).sum()), int((labels == SHIPS).sum())
    matrix = np.array(found["matrix"])
    assert matrix.sum() == found["num_images"] == 100
    assert matrix[CATS, DOGS] == cats
    assert matrix[SHIPS, CATS] == 1
    assert found["classes"][CATS]["recall"] == 0
    assert found["classes"][SHIPS]["recall"] == pytest.approx((ships - 1) / ships)
    assert found["most_confused"][0] == {"label": "cat", "predicted": "dog", "count": cats, "share": 1.0}
    assert found["accuracy"] == pytest.approx(matrix.trace() / 100)
    assert (found["split"], found["epoch"]) == ("validation", 2)
    assert get(client, f"{trained}/confusion?split=test")["num_images"] == 500


def test_roc_curves_of_every_class_and_their_mean(client: TestClient, trained: int) -> None:
    found = get(client, f"{trained}/roc?split=test")
    areas = {one["label"]: one["auc"] for one in found["classes"]}
    assert areas["frog"] == 1
    assert areas["dog"] < 1
    assert found["macro_auc"] == pytest.approx(sum(areas.values()) / 10)
    assert found["classes"][0]["true_positive_rate"][-1] == 1


def test_where_all_images_are_of_one_class_no_class_has_a_curve_and_the_picture_says_why(
    client: TestClient, filled: Filled
) -> None:
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    keep(filled, claim, outputs_of("validation", np.full(4, SHIPS, np.int64)))
    filled.settle(claim)
    found = get(client, f"{claim.experiment_id}/roc")
    assert found["macro_auc"] is None
    assert all(one["auc"] is None for one in found["classes"])
    picture = client.get(f"{API}/{claim.experiment_id}/roc.svg")
    assert "10 classes with none or all of the images" in picture.text


def test_the_surest_mistakes_name_images_that_can_be_looked_at(client: TestClient, trained: int) -> None:
    found = get(client, f"{trained}/mistakes?limit=3")
    assert found["num_wrong"] > len(found["mistakes"]) == 3
    first = found["mistakes"][0]
    assert (first["label"], first["predicted"]) == ("ship", "cat")
    assert first["probability"] > 0.999 > 0.001 > first["label_probability"]
    image = client.get(first["image"])
    assert image.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(image.content))).transpose(2, 0, 1)
    dataset = load_dataset("cifar10", Settings())
    assert np.array_equal(pixels, dataset.train_images[held_out()[first["index"]]])


def test_mistakes_of_one_pair_of_classes(client: TestClient, trained: int) -> None:
    pair = get(client, f"{trained}/mistakes?label=cat&predicted=DOG")
    assert {(one["label"], one["predicted"]) for one in pair["mistakes"]} == {("cat", "dog")}
    assert pair["num_wrong"] == len(pair["mistakes"])
    assert get(client, f"{trained}/mistakes?label={CATS}&predicted={DOGS}") == pair
    assert get(client, f"{trained}/mistakes?label=dog")["num_wrong"] == 0


def test_calibration_before_and_after(client: TestClient, trained: int) -> None:
    found = get(client, f"{trained}/calibration")
    outputs = outputs_of("validation", load_dataset("cifar10", Settings()).train_labels[held_out()])
    fitted = outputs.about.calibration
    assert fitted is not None
    assert (found["temperature"], found["energy_threshold"]) == (fitted.temperature, fitted.energy_threshold)
    assert found["expected_calibration_error"] == pytest.approx(fitted.error)
    assert found["calibrated_expected_calibration_error"] == pytest.approx(fitted.calibrated_error)
    assert sum(one["num_images"] for one in found["bins"]) == 100
    on_test = get(client, f"{trained}/calibration?split=test")
    assert on_test["temperature"] == found["temperature"]
    assert on_test["num_images"] == 500


@pytest.mark.parametrize("what", ["confusion", "roc", "mistakes"])
def test_pictures(client: TestClient, trained: int, what: str) -> None:
    png = client.get(f"{API}/{trained}/{what}.png")
    assert png.content.startswith(b"\x89PNG"), png.text
    assert client.get(f"{API}/{trained}/{what}.svg").content.startswith(b"<?xml")
    again = client.get(f"{API}/{trained}/{what}.png", headers={"If-None-Match": png.headers["etag"]})
    assert again.status_code == 304
    assert client.get(f"{API}/{trained}/{what}.png?split=test").headers["etag"] != png.headers["etag"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "wrong images, by falling confidence."),
        ("?limit=2", "wrong images, the 2 of the highest confidence."),
        ("?label=cat", "wrong images of class 'cat', by falling confidence."),
        ("?predicted=cat", "1 wrong image predicted as 'cat', by falling confidence."),
        ("?label=CAT&predicted=5&limit=1", "of class 'cat' predicted as 'dog', the 1 of the highest confidence."),
        ("?label=dog", "No image of class 'dog' is wrong."),
        ("?label=dog&predicted=cat", "No image of class 'dog' is wrongly predicted as 'cat'."),
        ("?predicted=frog", "No image is wrongly predicted as 'frog'."),
    ],
)
def test_a_gallery_says_which_mistakes_it_shows(client: TestClient, trained: int, query: str, words: str) -> None:
    assert words in client.get(f"{API}/{trained}/mistakes.svg{query}").text


@pytest.mark.parametrize(
    ("matrix", "legend"),
    [
        ([[3, 1], [0, 9]], "blue right, full at 100%; orange wrong, full at 25.0%, the largest."),
        ([[0, 4], [0, 9]], "full at 100%: blue right, orange wrong."),
        ([[4, 0], [0, 0]], "blue right, full at 100%; nothing is wrong."),
    ],
)
def test_the_legend_of_a_confusion_matrix_says_at_which_share_a_colour_is_full(
    matrix: list[list[int]], legend: str
) -> None:
    assert legend_of(np.array(matrix)).endswith(legend)


def test_images_of_every_split_by_position(client: TestClient, trained: int) -> None:
    dataset = load_dataset("cifar10", Settings())
    train, validation = split_indices(dataset.train_labels, parse_spec(SMALL).dataset)
    for split, expected in (
        ("train", dataset.train_images[train[7]]),
        ("validation", dataset.train_images[validation[7]]),
        ("test", dataset.test_images[7]),
    ):
        answer = client.get(f"{API}/{trained}/images/{split}/7.png")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))).transpose(2, 0, 1), expected)
    large = Image.open(io.BytesIO(client.get(f"{API}/{trained}/images/test/7.png?scale=5").content))
    assert large.size == (160, 160)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("images/validation/100.png", 404),
        ("images/train/200.png", 404),
        ("images/test/10000.png", 404),
        ("images/validation/-1.png", 404),
        ("images/holdout/1.png", 404),
        ("images/test/1.png?scale=65", 422),
        ("confusion?split=train", 422),
        ("mistakes?label=kat", 422),
        ("mistakes?predicted=10", 422),
        ("mistakes.png?limit=61", 422),
        ("confusion.gif", 404),
    ],
)
def test_what_there_is_not_is_refused(client: TestClient, trained: int, address: str, status: int) -> None:
    answer = client.get(f"{API}/{trained}/{address}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_misspelt_class_is_answered_with_the_nearest(client: TestClient, trained: int) -> None:
    (error,) = client.get(f"{API}/{trained}/mistakes?label=kat").json()["errors"]
    assert (error["field"], error["nearest"]) == ("label", "cat")
    long = client.get(f"{API}/{trained}/mistakes?label={'cat' * 80}").json()["errors"][0]
    assert long["message"].startswith("there is no class"), "names of folders may have 255 characters"


ADDRESSES = ("confusion", "confusion.png", "roc", "roc.svg", "mistakes", "mistakes.png", "calibration")


@pytest.mark.parametrize("address", ADDRESSES)
def test_before_there_are_any_the_answer_is_a_conflict_with_the_reason(
    client: TestClient, filled: Filled, address: str
) -> None:
    queued = filled.add()
    assert "when a run ends" in refused(client, f"{queued}/{address}")["detail"]
    old = filled.trained([epoch(1)])
    assert "reproduce" in refused(client, f"{old}/{address}")["fix"]
    assert "evaluate_test" in refused(client, f"{old}/{address}?split=test")["fix"]
    claim = filled.start(filled.add())
    filled.settle(claim, Status.CANCELLED)
    assert "resume" in refused(client, f"{claim.experiment_id}/{address}")["fix"]
    assert client.get(f"{API}/999/{address}").status_code == 404


def refused(client: TestClient, address: str) -> dict:
    answer = client.get(f"{API}/{address}")
    assert answer.status_code == 409, answer.text
    return answer.json()


def test_a_damaged_file_is_a_conflict_and_no_fault(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add())
    path = keep(filled, claim, outputs_of("validation", np.arange(100) % 10))
    filled.settle(claim)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-2000] ^= 1  # a label or a logit: only the digest tells
    for content in (whole[:-100], bytes(flipped)):
        path.write_bytes(content)
        for address in ADDRESSES:
            assert "reproduce" in refused(client, f"{claim.experiment_id}/{address}")["fix"]


def test_without_the_dataset_on_this_machine_images_are_a_conflict_that_says_how_to_fetch_it(
    client: TestClient, filled: Filled, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.uploaded.is_fetched", lambda info, cache_dir: False)
    assert "fetch cifar10" in refused(client, f"{trained}/images/test/1.png")["fix"]
    assert "fetch cifar10" in refused(client, f"{trained}/mistakes.png")["fix"]
    assert get(client, f"{trained}/mistakes")["mistakes"]
