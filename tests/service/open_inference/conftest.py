"""A served model, and a server to ask by real clients."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.store import Status, keys, runs
from models.store.states import Role
from service.app import create_app
from tests.service.lab_of_one import Filled, LiveServer, settings_in
from tests.service.predictions.pictures import encode, gradient
from tests.service.predictions.trained import Lab


@dataclass
class Served:
    """A lab that serves the model `cats` in two versions, and a key of each role."""

    url: str
    filled: Filled
    keys: dict[str, str]
    experiments: list[int]

    @property
    def address(self) -> str:
        """As tritonclient wants it: without a scheme."""
        return self.url.removeprefix("http://")

    def headers(self, role: str = "viewer") -> dict[str, str]:
        """What shows a key."""
        return {"Authorization": f"Bearer {self.keys[role]}"}


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One lab for all tests here, which change nothing in it."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("served"), auth=True))
    lab = Lab(filled.store, filled.settings)
    trained = [lab.train(seed=seed) for seed in (0, 1)]
    with filled.store.writing() as session:
        texts = {role.value: keys.create(session, role.value, role)[1] for role in Role}
        for one in trained:
            runs.settle(session, one.claim, Status.COMPLETED)
    with LiveServer(create_app(filled.settings)) as server:
        for one in trained:
            made = httpx.put(
                f"{server.url}/api/v1/models/cats",
                json={"experiment_id": one.id},
                headers={"Authorization": f"Bearer {texts['submitter']}"},
            )
            assert made.is_success, made.text
        yield Served(server.url, filled, texts, [one.id for one in trained])
    filled.store.dispose()


def pixels() -> NDArray[np.uint8]:
    """Two images (2, 3, 32, 32)."""
    images = np.stack([gradient(), gradient()[:, ::-1]])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def files() -> list[bytes]:
    """The same two as PNG."""
    return [encode(Image.fromarray(image.transpose(1, 2, 0)), "PNG") for image in pixels()]
