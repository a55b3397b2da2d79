"""The application's lifespan and process-wide settings."""

import gc
import sys
from pathlib import Path

from starlette.testclient import TestClient

from models.settings import Settings
from service import server
from service.app import create_app


def test_an_application_leaves_the_collector_of_its_process_alone(client: TestClient) -> None:
    assert client.get("/healthz").status_code == 200
    assert gc.get_freeze_count() == 0


def test_a_server_exempts_what_is_loaded_from_garbage_collection_once_torch_is(tmp_path: Path) -> None:
    """Else figures pile up between two rounds over everything that torch has brought along: 150 MB in ten minutes."""
    loaded = []

    def on_start() -> None:
        loaded.append("torch" in sys.modules)
        server.exempt_loaded_objects()

    try:
        with TestClient(create_app(Settings(data_dir=tmp_path), on_start=on_start), "http://127.0.0.1") as client:
            assert client.get("/healthz").status_code == 200
            assert gc.get_freeze_count() > 100_000
    finally:
        gc.unfreeze()
    assert loaded == [True]
