"""Fixtures of the API's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from models.settings import Settings
from tests.service.lab_of_one import Filled, client_of, settings_in
from tests.stores import make_tables


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A lab of its own, on loopback, without keys and without a broker."""
    settings = settings_in(tmp_path)
    make_tables(settings)
    return settings


@pytest.fixture
def filled(settings: Settings) -> Iterator[Filled]:
    """The lab's store, to be filled as a worker would."""
    filled = Filled(settings)
    yield filled
    filled.store.dispose()


@pytest.fixture
def client(settings: Settings, filled: Filled) -> Iterator[TestClient]:
    """A client of the application on that store."""
    with client_of(settings) as client:
        yield client


@pytest.fixture(scope="session")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a lab with one queued experiment, shared by tests that change nothing."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("steady")))
    filled.add()
    with client_of(filled.settings) as client:
        yield client
    filled.store.dispose()
