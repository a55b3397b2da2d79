"""A migrated, file-backed database for every test: copied from one that was migrated once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.settings import Settings
from models.store import Store
from models.store.store import url_of
from tests.postgres import SERVER, new_database


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a migrated, empty lab, which each test's own is copied from."""
    url = new_database() if SERVER else None
    settings = Settings(data_dir=tmp_path_factory.mktemp("migrated"), database_url=url)
    store = Store(settings)
    store.migrate()
    store.dispose()
    return settings


@pytest.fixture
def settings(tmp_path: Path, migrated: Settings) -> Settings:
    """Settings of a lab of this test's own."""
    shutil.copytree(migrated.data_dir, tmp_path / "lab")
    url = new_database(str(url_of(migrated).database)) if SERVER else None
    return Settings(data_dir=tmp_path / "lab", database_url=url)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """That lab's store."""
    store = Store(settings)
    yield store
    store.dispose()
