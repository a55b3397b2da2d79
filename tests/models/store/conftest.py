"""A migrated, file-backed database for every test: copied from one that was migrated once."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from models.settings import Settings
from models.store import Store
from tests.models.store.helpers import POSTGRES


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a migrated, empty lab, which each test's own is copied from."""
    url = _new_postgres_database("template1") if POSTGRES else None
    settings = Settings(data_dir=tmp_path_factory.mktemp("migrated"), database_url=url)
    store = Store(settings)
    store.migrate()
    store.dispose()
    return settings


@pytest.fixture
def settings(tmp_path: Path, migrated: Settings) -> Settings:
    """Settings of a lab of this test's own."""
    shutil.copytree(migrated.data_dir, tmp_path / "lab")
    url = _new_postgres_database(make_url(migrated.resolved_database_url).database) if POSTGRES else None
    return Settings(data_dir=tmp_path / "lab", database_url=url)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """That lab's store."""
    store = Store(settings)
    yield store
    store.dispose()


def _new_postgres_database(template: str | None) -> str:
    """URL of a new database on the server that the tests were pointed to."""
    name = f"epochal_test_{secrets.token_hex(6)}"
    engine = create_engine(str(POSTGRES), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    return make_url(str(POSTGRES)).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
