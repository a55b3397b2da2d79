"""A migrated, file-backed database for every test: copied from one that was migrated once."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.settings import Settings
from models.store import Store


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a migrated, empty lab."""
    folder = tmp_path_factory.mktemp("migrated")
    store = Store(Settings(data_dir=folder))
    store.migrate()
    store.dispose()
    return folder


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    """Settings of a lab of this test's own."""
    shutil.copytree(migrated, tmp_path / "lab")
    return Settings(data_dir=tmp_path / "lab")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """That lab's store."""
    store = Store(settings)
    yield store
    store.dispose()


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
