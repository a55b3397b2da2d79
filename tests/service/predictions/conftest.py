"""A lab with trained networks in it, as the worker leaves them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.settings import Settings
from models.store import Store
from tests.service.predictions.trained import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An empty lab of this test's own."""
    settings = Settings(data_dir=tmp_path / "lab")
    store = Store(settings)
    store.migrate()
    yield Lab(store, settings)
    store.dispose()
