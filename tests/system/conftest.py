"""One real lab for all system tests: an embedded broker, the API and a worker, in a temporary data directory."""

import os
from collections.abc import Iterator

import pytest

from models.data.dataset import load_dataset
from models.settings import Settings
from service.cli.client import Client
from service.lab.lab import Lab
from tests.postgres import SERVER, new_database
from tests.system.experiments import small_spec, wait_until_ended


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The running lab, with a lease short enough to see one expire."""
    url = new_database() if SERVER else None
    settings = Settings(data_dir=tmp_path_factory.mktemp("lab"), port=0, workers=1, lease_seconds=4.0, database_url=url)
    load_dataset("cifar10", settings)
    said: list[str] = []
    before = os.umask(0)  # whatever it is, what the lab makes is its user's alone
    with Lab(settings, say=said.append) as running:
        os.umask(before)
        yield running
    left = [part.name for part in running.parts if part.pid is not None]
    assert not left, f"{left} were left running"


@pytest.fixture(scope="session")
def client(lab: Lab) -> Iterator[Client]:
    """An HTTP client of it."""
    with Client(lab.url) as opened:
        yield opened


@pytest.fixture(scope="session")
def completed(client: Client) -> int:
    """The number of a small experiment that has completed; tests only read it."""
    experiment = client.post("/experiments", small_spec(name="completed", tags=["shared"]))
    ended = wait_until_ended(client, experiment["id"])
    assert ended["status"] == "completed", ended["reason"]
    return int(ended["id"])
