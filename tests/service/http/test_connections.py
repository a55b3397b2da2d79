"""Connection limits: idle connections are closed for new ones, and clients that do not read are disconnected."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from models.settings import Settings
from service.app import create_app
from service.http import connections
from service.http.connections import Connections
from service.http.proxies import TrustedProxies
from tests.processes import wait_until
from tests.service.lab_of_one import Filled, LiveServer, read_all


class FakeConnection:
    """A connection without a network."""

    def __init__(self) -> None:
        self.num_written = self.num_waiting = 0
        self.is_open = True

    def get_write_buffer_size(self) -> int:
        return self.num_waiting

    def abort(self) -> None:
        self.is_open = False


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr(Connections, "_sweep_within", lambda self, seconds: None)
    return Connections(TrustedProxies(["10.0.0.1"]), most=1000)


def arrive(known: Connections, host: str, count: int = 1) -> list[FakeConnection]:
    opened = [FakeConnection() for _ in range(count)]
    for connection in opened:
        assert known.add(connection, host)
        known.mark_idle(connection)
    return opened


def test_an_address_has_its_share(known: Connections) -> None:
    first, *others = arrive(known, "1.2.3.4", connections.MAX_AN_ADDRESS)
    neighbour, (newest,) = arrive(known, "1.2.3.5")[0], arrive(known, "1.2.3.4")
    assert not first.is_open
    assert all(connection.is_open for connection in (*others, neighbour, newest))


def test_one_that_is_at_work_does_not_make_way(known: Connections) -> None:
    opened = arrive(known, "1.2.3.4", connections.MAX_AN_ADDRESS)
    for connection in opened:
        known.mark_active(connection)
    assert not known.add(FakeConnection(), "1.2.3.4")
    assert known.add(FakeConnection(), "1.2.3.5")
    known.remove(opened[7])
    assert known.add(FakeConnection(), "1.2.3.4")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.0.0.1", "::ffff:10.0.0.1"])
def test_this_machine_and_proxies_have_more_and_leave_room(known: Connections, host: str) -> None:
    opened = arrive(known, host, 900)
    assert sum(connection.is_open for connection in opened) == 875
    assert all(connection.is_open for connection in arrive(known, "1.2.3.4", 100))


def test_neighbours_in_one_ipv6_network_share(known: Connections) -> None:
    opened = [arrive(known, f"2001:db8::{number:x}")[0] for number in range(1, connections.MAX_AN_ADDRESS + 11)]
    assert sum(connection.is_open for connection in opened) == connections.MAX_AN_ADDRESS


def test_the_newest_always_finds_room(known: Connections) -> None:
    for number in range(10):
        arrive(known, f"1.2.3.{number}", 200)
    assert all(connection.is_open for connection in arrive(known, "1.2.4.1"))


class Clock:
    now = 0.0

    def time(self) -> float:
        return self.now


def test_an_answer_that_is_read_slowly_is_waited_for_and_one_that_is_not_read_is_not(known: Connections) -> None:
    clock, (slow, silent) = Clock(), arrive(known, "127.0.0.1", 2)
    for connection in (slow, silent):
        connection.num_written = connection.num_waiting = 20_000_000
    for _ in range(60):
        known._abort_unread(clock)  # type: ignore[arg-type]
        clock.now += 1
        slow.num_waiting -= connections.READ_BYTES_PER_SECOND
        assert silent.is_open is (clock.now <= connections.READ_GRACE_SECONDS + 1)
    assert slow.is_open


def test_what_nobody_reads_is_bounded_at_once(known: Connections) -> None:
    clock, opened = Clock(), arrive(known, "127.0.0.1", 100)
    for connection in opened:
        connection.num_written = connection.num_waiting = 1_000_000
    known._abort_unread(clock)  # type: ignore[arg-type]
    assert all(connection.is_open for connection in opened)
    for connection in opened[:10]:
        connection.num_waiting -= 1
    known._abort_unread(clock)  # type: ignore[arg-type]
    assert all(connection.is_open for connection in opened[:10])
    assert sum(connection.num_waiting for connection in opened if connection.is_open) <= connections.MAX_UNREAD_BYTES


@pytest.fixture
def server(settings: Settings, filled: Filled, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setattr(connections, "READ_GRACE_SECONDS", 0.3)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    with LiveServer(create_app(settings)) as server:
        yield server


@pytest.mark.parametrize("path", ["/openapi.json", "/api/v1/schema", "/docs"])
def test_a_client_that_never_reads_is_cut_off(server: LiveServer, path: str) -> None:
    silent = []
    for _ in range(2):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", server.port))
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        connection.sendall(request * 12)
        silent.append(connection)
    wait_until(lambda: len(server.server.server_state.connections) == 0)
    for connection in silent:
        connection.close()


def test_connections_that_say_nothing_shut_nobody_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 50)
    with LiveServer(create_app(settings)) as server:
        silent = [server.connect() for _ in range(120)]
        for _ in range(20):
            assert httpx.get(f"{server.url}/healthz", timeout=30).status_code == 200
        assert len(server.server.server_state.connections) <= 50
        assert read_all(silent[0]) == b""
        for connection in silent:
            connection.close()
