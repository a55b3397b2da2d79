"""The application as a process has it."""

import gc

from starlette.testclient import TestClient


def test_what_is_there_at_the_start_is_kept_from_the_collector(client: TestClient) -> None:
    """Else figures pile up between two rounds over everything that torch has brought along: 150 MB in ten minutes."""
    assert client.get("/healthz").status_code == 200
    assert gc.get_freeze_count() > 100_000
