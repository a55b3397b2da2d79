"""A trained network tells images of its classes from clothes and from noise, over HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from models.evaluation.outputs import read_about
from models.evaluation.roc import roc_curve
from models.files import sha256_of
from models.store import artifacts
from models.store.states import ArtifactKind
from tests.service.explanations.planted import as_png
from tests.service.lab_of_one import client_of, settings_in
from tests.service.predictions.trained import Lab
from tests.stores import new_store
from tests.worker.training.tiny import PLAIN, images, spec
from worker.training.engine import train
from worker.training.sink import MemorySink

CLOTHES = Path(__file__).with_name("fashion-mnist-100.png")
"""The first 100 test images of Fashion-MNIST, ten in a row (MIT licence, Zalando SE)."""
FILES = {
    "graph.onnx": ArtifactKind.GRAPH,
    "weights-best.safetensors": ArtifactKind.WEIGHTS_BEST,
    "outputs-validation.safetensors": ArtifactKind.OUTPUTS_VALIDATION,
}


def clothes() -> NDArray[np.uint8]:
    """(100, 3, 32, 32)."""
    sheet = Image.open(CLOTHES)
    boxes = [(28 * column, 28 * row, 28 * column + 28, 28 * row + 28) for row in range(10) for column in range(10)]
    large = [sheet.crop(box).resize((32, 32), Image.Resampling.BILINEAR).convert("RGB") for box in boxes]
    return np.stack([np.asarray(one).transpose(2, 0, 1) for one in large])


def strangers() -> dict[str, NDArray[np.uint8]]:
    """Images of none of the classes."""
    rng = np.random.default_rng(0)
    return {
        "clothes": clothes(),
        "uniform noise": rng.integers(0, 256, (100, 3, 32, 32), dtype=np.uint8),
        "normal noise": np.clip(rng.normal(128, 255, (100, 3, 32, 32)), 0, 255).astype(np.uint8),
    }


@dataclass(frozen=True)
class Scored:
    """A lab with a network that the engine has trained, asked over HTTP."""

    client: TestClient
    number: int
    outputs: Path

    def ask(self, pixels: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """What is predicted for images (N, 3, 32, 32)."""
        files = [("image", (f"{place}.png", as_png(image))) for place, image in enumerate(pixels)]
        answer = self.client.post(f"/api/v1/experiments/{self.number}/predictions", files=files)
        found: list[dict[str, Any]] = answer.raise_for_status().json()["predictions"]
        return found

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Their scores."""
        return np.array([one["unknown_score"] for one in self.ask(pixels)])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    """A small network, trained on 300 images and measured on 300 others."""
    settings = settings_in(tmp_path_factory.mktemp("unknown"))
    store = new_store(settings)
    half = {"name": "cifar10", "val_fraction": 0.5}
    claim = Lab(store, settings).add_experiment(PLAIN, epochs=2, batch_size=32)
    folder = settings.experiments_dir / f"{claim.experiment_id}"
    train(spec(model=PLAIN, epochs=2, dataset=half), images(600, 100, 32), MemorySink(), folder, device="cpu")
    with store.writing() as session:
        for name, kind in FILES.items():
            path = folder / name
            place = f"{claim.experiment_id}/{name}"
            artifacts.record(session, claim, kind, 0, place, sha256_of(path), path.stat().st_size)
    with client_of(settings) as client:
        yield Scored(client, claim.experiment_id, folder / "outputs-validation.safetensors")
    store.dispose()


def area(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """How often one of the unknown has a higher score than one of the known (AUROC)."""
    scores = np.concatenate((known, unknown))
    curve = roc_curve(scores, np.arange(len(scores)) >= len(known))
    assert curve is not None
    return curve.area


@pytest.mark.parametrize("name", ["clothes", "uniform noise", "normal noise"])
def test_images_of_no_class_have_higher_scores_than_those_of_the_test_split(lab: Scored, name: str) -> None:
    known, unknown = lab.scores(images(600, 100, 32).test_images), lab.scores(strangers()[name])
    assert area(known, unknown) > 0.9


def test_most_images_of_the_test_split_are_known_and_noise_is_not(lab: Scored) -> None:
    fitted = read_about(lab.outputs).calibration
    assert fitted is not None
    assert fitted.unknown is not None
    for pixels, least, most in ((images(600, 100, 32).test_images, 0, 15), (strangers()["uniform noise"], 100, 100)):
        found = lab.ask(pixels)
        assert least <= sum(one["known"] is False for one in found) <= most
        assert [one["known"] for one in found] == [one["unknown_score"] <= fitted.unknown.threshold for one in found]


def test_the_threshold_is_told_beside_the_calibration(lab: Scored) -> None:
    fitted = read_about(lab.outputs).calibration
    assert fitted is not None
    assert fitted.unknown is not None
    told = lab.client.get(f"/api/v1/experiments/{lab.number}/calibration").json()
    assert told["unknown_threshold"] == fitted.unknown.threshold


def test_an_images_score_does_not_depend_on_the_others_in_its_request(lab: Scored) -> None:
    pixels = images(600, 100, 32).test_images[:20]
    assert lab.scores(pixels)[7:9].tolist() == [*lab.scores(pixels[7:8]), *lab.scores(pixels[8:9])]
