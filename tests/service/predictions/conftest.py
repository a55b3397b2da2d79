"""A lab with trained networks in it, as the worker leaves them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.settings import Settings
from tests.service.predictions.trained import Lab
from tests.stores import new_store


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An empty lab of this test's own."""
    settings = Settings(data_dir=tmp_path / "lab")
    store = new_store(settings)
    yield Lab(store, settings)
    store.dispose()
