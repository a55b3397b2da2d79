"""Fixtures of the tests of studies."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.service.lab_of_one import Filled, client_of, settings_in


@pytest.fixture(scope="session")
def shared_filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """The store of one lab for tests that do not count what is in it: building networks takes a process with torch."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("studies")))
    yield filled
    filled.store.dispose()


@pytest.fixture(scope="session")
def shared_client(shared_filled: Filled) -> Iterator[TestClient]:
    """Its client."""
    with client_of(shared_filled.settings) as client:
        yield client
