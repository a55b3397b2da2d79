"""benchmarks.parity finds served answers, PyTorch's own and the exported file's the same, and says if they are not."""

from pathlib import Path

import httpx
import pytest

from benchmarks import parity
from models.data.dataset import load_dataset
from models.settings import Settings
from service.app import create_app
from tests.service.explanations.planted import MODEL
from tests.service.lab_of_one import LiveServer, settings_in
from tests.service.predictions.trained import Lab
from tests.stores import new_store


def test_labels_and_probabilities_agree_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path)
    store = new_store(settings)
    trained = Lab(store, settings).train(MODEL)
    monkeypatch.setattr(parity, "train", lambda lab, model, num_images: trained.id)
    monkeypatch.setattr(parity, "PER_REQUEST", 12)
    images = load_dataset("cifar10", Settings()).test_images[:20]
    with LiveServer(create_app(settings)) as server, httpx.Client(base_url=f"{server.url}/api/v1", timeout=60) as lab:
        found = parity.measure(lab, MODEL, images)
        assert found["images"] == 20
        assert found["labels_unlike_pytorch"] == found["labels_unlike_the_file"] == 0
        assert found["largest_difference_from_pytorch"] < 1e-5
        assert found["largest_difference_from_the_file"] < 1e-5
        monkeypatch.setattr(parity, "evaluate", lambda weights, images: -1.0 * honest(weights, images))
        assert parity.measure(lab, MODEL, images)["labels_unlike_pytorch"] > 10
    store.dispose()


honest = parity.evaluate
