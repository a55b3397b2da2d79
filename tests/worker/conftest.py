"""A lab that the modules share; its worker is warm, so that a test waits for training only."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.data.catalogue import get_dataset
from models.data.dataset import load_dataset
from models.settings import Settings
from tests.worker.lab import Lab


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """The user's cache with CIFAR-10 in it."""
    settings = Settings()
    load_dataset(get_dataset("cifar10").name, settings)
    return settings.cache_dir


@pytest.fixture(scope="session")
def lab(cache_dir: Path) -> Iterator[Lab]:
    """One lab. Its folder has a short name, since a socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir=os.environ.get("TMPDIR", "/tmp")) as folder:
        lab = Lab(Path(folder), cache_dir)
        try:
            yield lab
        finally:
            lab.close()


@pytest.fixture(autouse=True)
def _nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test, also one that fails half-way, leaves the next one an idle lab."""
    yield
    if "lab" in request.fixturenames:
        lab = request.getfixturevalue("lab")
        lab.wake_workers()
        lab.cancel_all()
