"""Fixtures of the API's tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from models.settings import Settings
from models.store import Store
from tests.service.lab_of_one import Filled, client_of, settings_in


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and nothing in them, made once."""
    settings = settings_in(tmp_path_factory.mktemp("empty"))
    store = Store(settings)
    store.migrate()
    store.dispose()
    return settings.data_dir / "epochal.db"


@pytest.fixture
def settings(tmp_path: Path, empty_database: Path) -> Settings:
    """A lab of its own, on loopback, without keys and without a broker."""
    shutil.copy(empty_database, tmp_path / "epochal.db")
    return settings_in(tmp_path)


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
