"""A data directory of release 0.1.0, as it was left by a lab that was stopped, opened by this version.

lab-0.1.0.tar.gz was made with that release's own code: experiment 1 has completed (3 epochs of a network with one
convolution of 4 kernels), experiment 2 was interrupted by the stop, and there is one key.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.data.dataset import load_dataset
from models.settings import Settings
from service.cli.client import Client
from service.lab.lab import Lab
from tests.processes import wait_until
from tests.system.experiments import wait_until_ended

FOLDER = Path(__file__).parent / "data"
KEY = (FOLDER / "lab-0.1.0.key").read_text().strip()


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client with the old key, of a lab on the old data."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FOLDER / "lab-0.1.0.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    settings = Settings(data_dir=folder / "lab", port=0, workers=1, auth=True)
    load_dataset("cifar10", settings)
    with Lab(settings) as lab, Client(lab.url, KEY) as client:
        yield client


def test_the_interrupted_run_goes_on_from_its_checkpoint(upgraded: Client) -> None:
    """First, since the lab takes it up at once: the others would wait while it trains."""
    before = json.loads((FOLDER / "lab-0.1.0.json").read_text())["interrupted_epochs"]

    def further() -> bool:
        return len(upgraded.get("/experiments/2/metrics")["epochs"]) > before + 1

    wait_until(further, what="an epoch after the upgrade")
    first, second = upgraded.get("/experiments/2")["runs"]
    assert first["status"] == "handed_back"
    assert second["start_epoch"] >= before - 1 > 0
    epochs = [each["epoch"] for each in upgraded.get("/experiments/2/metrics")["epochs"]]
    assert epochs == list(range(1, len(epochs) + 1))
    upgraded.post("/experiments/2/cancel", {})
    wait_until_ended(upgraded, 2)


def test_what_was_stored_reads_as_it_did(upgraded: Client) -> None:
    before = json.loads((FOLDER / "lab-0.1.0.json").read_text())
    experiment = upgraded.get("/experiments/1")
    for name in ("name", "tags", "status", "created_at", "finished_at"):
        assert experiment[name] == before["experiment"][name], name
    for name, value in before["experiment"]["spec"].items():
        assert experiment["spec"][name] == value or isinstance(value, dict), name
    assert [
        {name: epoch[name] for name in was}
        for epoch, was in zip(upgraded.get("/experiments/1/metrics")["epochs"], before["epochs"], strict=True)
    ] == before["epochs"]
    assert [item["id"] for item in upgraded.get("/experiments")["items"]] == [2, 1]


def test_its_weights_predict_and_its_pictures_are_drawn(upgraded: Client) -> None:
    assert upgraded.get("/experiments/1/verdict")
    for path in ("curves.png", "kernels.png", "metrics.csv"):
        assert upgraded.get_bytes(f"/experiments/1/{path}"), path
    before = json.loads((FOLDER / "lab-0.1.0.json").read_text())["prediction"]["predictions"][0]
    answer = upgraded.post_images("/experiments/1/predictions", [FOLDER / "grey.png"])["predictions"][0]
    assert answer["label"] == before["label"]
    for now, then in zip(answer["top"], before["top"], strict=True):
        assert now["label"] == then["label"]
        assert now["probability"] == pytest.approx(then["probability"], abs=1e-4)
