"""A lab with a network that looks at one corner, and what a worker does with explanations, without its processes."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.data.catalogue import get_dataset
from models.errors import EpochalError
from models.networks.describe import describe
from models.spec.parse import parse_spec
from models.store import measurements, workers
from models.store.states import MeasurementKind
from models.store.tables import Experiment
from tests.service.explanations.planted import MODEL, as_png, images, planted_lab
from tests.service.lab_of_one import client_of
from tests.service.predictions.trained import Lab, Trained
from worker.explain import explain

API = "/api/v1/experiments"


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


@pytest.fixture(scope="package")
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
