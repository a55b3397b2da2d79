"""Errors of PostgreSQL servers and their addresses name what to correct; against real servers."""

import socket
import threading
from collections.abc import Iterator

import psycopg
import pytest

from models.errors import EpochalError, Unavailable
from models.settings import Settings
from models.store import Store, keys
from models.store.states import Role
from tests.postgres import MISSING, Postgres, programs

pytestmark = pytest.mark.skipif(programs() is None, reason=MISSING)

ROLES = (
    "CREATE ROLE ada LOGIN PASSWORD 'pw'",
    "CREATE ROLE full_up LOGIN PASSWORD 'pw' CONNECTION LIMIT 0",
    "CREATE ROLE nologin",
    "CREATE DATABASE private",
    "REVOKE CONNECT ON DATABASE private FROM public",
    "CREATE DATABASE closed ALLOW_CONNECTIONS false",
    "CREATE DATABASE unlocked",
    "CREATE DATABASE forbidden",
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server with some roles and databases; `unlocked` asks for no password, `forbidden` refuses by pg_hba.conf."""
    with Postgres() as server:
        server.put_first_in_hba("host unlocked all all trust", "host forbidden all all reject")
        with psycopg.connect(server.url, autocommit=True) as connection:
            for statement in ROLES:
                connection.execute(statement)
        yield server


def reason(address: str) -> tuple[str, str]:
    """What the first use of a database says: its detail and its advice."""
    store = Store(Settings(database_url=address))
    try:
        with pytest.raises(EpochalError) as caught:
            store.migrate()
    finally:
        store.dispose()
    assert isinstance(caught.value, Unavailable)
    return caught.value.detail, str(caught.value.fix)


CORRECT = "correct EPOCHAL_DATABASE_URL"
AGAIN = "try again"
PASSWORD = "the database refuses the user name or password"
NO_DATABASE = "the database server has no database of that name"
NO_USER = "the database has no user of that name"
NO_ENTRY = "the database refuses this user or machine (pg_hba.conf)"
NO_HOST = "the database cannot be found: no such host"
NOBODY = "the database does not answer: nothing listens at that host and port"
FULL = "the database has reached its limit of connections"


@pytest.mark.parametrize(
    ("address", "detail", "fix"),
    [
        ("postgres:wrong@{server}/postgres", PASSWORD, CORRECT),
        ("nobody:{password}@{server}/postgres", PASSWORD, CORRECT),
        ("nologin:pw@{server}/postgres", PASSWORD, CORRECT),
        ("postgres@{server}/postgres", "the database requires a password", CORRECT),
        ("postgres:{password}@{server}/nonsense", NO_DATABASE, CORRECT),
        ("postgres:{password}@{server}/ssl", NO_DATABASE, CORRECT),
        ("postgres:{password}@{server}/role%20timeout", NO_DATABASE, CORRECT),
        ("postgres:{password}@{server}/a%22ssl%22b", NO_DATABASE, CORRECT),
        ("postgres:{password}@{server}/closed", "the database does not accept connections", AGAIN),
        ("ada:pw@{server}/private", "the database refuses this user", CORRECT),
        ("postgres:{password}@{server}/forbidden", NO_ENTRY, CORRECT),
        ("nobody@{server}/unlocked", NO_USER, CORRECT),
        ("nologin@{server}/unlocked", "the database refuses this user", CORRECT),
        ("full_up:pw@{server}/postgres", FULL, AGAIN),
        ("postgres:{password}@no-such-host.invalid/postgres", NO_HOST, CORRECT),
        ("postgres:{password}@ssl.timeout.invalid/postgres", NO_HOST, CORRECT),
        ("postgres:{password}@127.0.0.1:1/postgres", NOBODY, AGAIN),
        ("/lab?host=/nowhere", "the database does not answer: nothing listens at that socket", AGAIN),
        ("{server}/postgres?sslmode=require", "the database and this machine do not agree on TLS", CORRECT),
        ("{server}/postgres?sslmode=maybe", "the database's address has a value that its driver refuses", CORRECT),
        ("{server}/postgres?colour=red", "the database's address has a parameter that its driver refuses", CORRECT),
        ("ada:pw@{server}/postgres", "the database does not allow this user to create or change tables", "GRANT"),
    ],
)
def test_each_fault_of_an_address_has_its_own_reason(postgres: Postgres, address: str, detail: str, fix: str) -> None:
    server = f"127.0.0.1:{postgres.port}"
    found, advice = reason("postgresql://" + address.format(server=server, password=postgres.password))
    assert found.startswith(detail), found
    assert fix in advice
    assert postgres.password not in f"{found} {advice}"
    assert "nobody" not in found


def test_a_standby_or_read_only_server_is_said_to_take_no_changes(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE lab")
    address = postgres.url.removesuffix("/postgres") + "/lab"
    store = Store(Settings(database_url=address))
    store.migrate()
    store.dispose()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("ALTER DATABASE lab SET default_transaction_read_only = on")
    store = Store(Settings(database_url=address))
    with store.reading() as session:
        assert list(keys.list(session)) == []
    refused = pytest.raises(Unavailable, match="does not accept changes: it is a standby server, or read-only")
    with refused as caught, store.writing() as session:
        keys.create(session, "ann", Role.VIEWER)
    store.dispose()
    assert "primary" in str(caught.value.fix)


def test_a_server_that_is_no_postgresql_is_said_to_be_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_as_http() -> None:
            while True:
                try:
                    peer = listener.accept()[0]
                except OSError:
                    return
                with peer:
                    peer.recv(100)
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer_as_http, daemon=True)
        thread.start()
        for mode in ("prefer", "disable"):
            address = f"postgresql://127.0.0.1:{listener.getsockname()[1]}/lab?sslmode={mode}"
            found, advice = reason(address)
            assert found == "the database is not PostgreSQL: something else answers at that host and port", mode
            assert CORRECT in advice
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


def test_a_server_that_has_stopped_is_away_and_nothing_has_to_be_corrected() -> None:
    with Postgres() as server:
        store = Store(Settings(database_url=server.url))
        store.migrate()
        server.stop()
        for _ in range(2):
            with pytest.raises(Unavailable, match="the database does not answer") as caught, store.writing():
                pass
            assert caught.value.fix == AGAIN
            assert caught.value.extra["retry_after_seconds"] > 0
        server.start()
        with store.writing():
            pass
        store.dispose()
