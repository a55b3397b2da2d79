"""The database of one lab: connections, transactions, migrations, backup.

    store = Store(settings)
    store.migrate()
    with store.reading() as session: ...    one consistent snapshot
    with store.writing() as session: ...    committed at the end, rolled back on an error

Writers come one at a time, between processes too: SQLite's BEGIN IMMEDIATE, an advisory lock on PostgreSQL. So what a
transaction read still holds when it writes, and compare-and-set needs no retry. Keep writing transactions short.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from models.errors import InvalidRequest, StorageFull, Unavailable
from models.files import FREE_SPACE, make_folder, placing
from models.settings import Settings
from models.store import migrations
from models.store.columns import to_json
from models.store.sqlite import dbapi, is_safe
from models.store.trouble import translate
from models.urls import mask

BUSY_SECONDS = 40
"""How long a writer waits for another one; a database locked for 30 s must not fail a write."""
RETRY_SECONDS = 0.1
LIBPQ = {
    "client_encoding": "utf8",  # also from a database that was made without an encoding
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}
"""PostgreSQL connection arguments; the timeouts detect a lost server (seconds; tcp_user_timeout in ms)."""
WRITERS_LOCK = 0x45504F43
"""Key of PostgreSQL's advisory lock: only its holder writes."""


class Store:
    """One lab's database. Threads may share one; a forked child must make its own."""

    def __init__(self, settings: Settings) -> None:
        self.url = url_of(settings)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._writing_thread: int | None = None
        self._readers = _make_engine(self.url, writes=False)
        self._writer = _make_engine(self.url, writes=True)

    @property
    def sqlite_version(self) -> str | None:
        """Version of the SQLite library in use; None on another database."""
        return dbapi.sqlite_version if self.is_sqlite else None

    @property
    def sqlite_safe(self) -> bool:
        """Whether this is not one of the SQLite versions that can corrupt a WAL database."""
        return not self.is_sqlite or is_safe(dbapi.sqlite_version)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session on one snapshot of the database; writing in it is an error."""
        self._check_process()
        with _translated(only_reads=True), Session(self._readers, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that may write, alone in doing so until it ends.

        Raises Unavailable when its turn does not come within BUSY_SECONDS, StorageFull when the disk takes no more.
        """
        self._check_process()
        if self._writing_thread == threading.get_ident():
            raise RuntimeError("writing() inside writing() would wait for itself; pass the session on")
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise Unavailable(f"the database was busy for {BUSY_SECONDS} s", fix="try again", retry_after_seconds=5)
        try:
            self._writing_thread = threading.get_ident()
            with _translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
                session.connection()  # a Session begins at its first statement; the wait for the lock belongs here
                yield session
        finally:
            self._writing_thread = None
            self._turn.release()

    def migrate(self) -> None:
        """Bring the schema to this version's; several processes may do so at once."""
        self._check_process()
        if self.is_sqlite:
            make_folder(Path(str(self.url.database)).parent)
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                with _translated(), self._writer.begin() as connection:
                    return migrations.upgrade(connection)
            except Unavailable:  # SQLite refuses at once, not after its timeout, while another process turns WAL on
                if not self.is_sqlite or time.monotonic() > until:
                    raise
                time.sleep(RETRY_SECONDS)

    def backup(self, path: Path) -> None:
        """Write a consistent copy of the database to `path` while others read and write. SQLite only."""
        self._check_process()
        if not self.is_sqlite:
            raise InvalidRequest(f"a {self.url.get_backend_name()} database is not copied here", fix="use pg_dump")
        with placing(path) as temporary, closing(self._writer.raw_connection()) as connection:
            try:  # outside any transaction, so it holds no one up; a snapshot all the same
                connection.cursor().execute("VACUUM INTO ?", (str(temporary),))
            except dbapi.DatabaseError as error:
                raise StorageFull(f"the backup cannot be written ({error})", fix=FREE_SPACE) from error

    def dispose(self) -> None:
        """Close every connection; the next use opens new ones."""
        self._check_process()
        self._readers.dispose()
        self._writer.dispose()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("this Store was made before a fork; SQLite connections do not survive one: make a new")


def url_of(settings: Settings) -> URL:
    """Build the database's URL. A path is passed as a component, since `?`, `%` and `#` have a meaning in text."""
    if settings.database_url:
        return make_url(settings.database_url)
    return URL.create("sqlite", database=str(settings.database_path))


def describe_database(settings: Settings) -> str:
    """Describe the database for administrators: its address without user and password."""
    if settings.database_url:
        return mask(settings.database_url)
    return str(settings.database_path)


def _make_engine(url: URL, *, writes: bool) -> Engine:
    # Readers and writers have pools of their own, so that waiting writers cannot starve readers.
    size = {"pool_size": 2, "max_overflow": 0} if writes else {"pool_size": 8, "max_overflow": 56}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, module=dbapi, json_serializer=to_json, pool_timeout=BUSY_SECONDS, **size)
        event.listen(engine, "connect", _prepare_writer if writes else _prepare_reader)
        event.listen(engine, "begin", _begin_immediate if writes else _begin)
        return engine
    isolation = "READ COMMITTED" if writes else "REPEATABLE READ"
    options: dict[str, Any] = {"isolation_level": isolation, "pool_pre_ping": True, "pool_timeout": BUSY_SECONDS}
    if url.get_driver_name() == "psycopg":
        options["connect_args"] = {name: value for name, value in LIBPQ.items() if name not in url.query}
    try:
        engine = create_engine(url, json_serializer=to_json, **options, **size)
    except ImportError as error:
        missing = f"the driver of {url.get_backend_name()} is not installed: {error}"
        raise Unavailable(missing, fix="pip install 'psycopg[binary]' for PostgreSQL") from error
    event.listen(engine, "begin", _take_turn if writes else _read_only)
    return engine


def _prepare(connection: DBAPIConnection, pragmas: dict[str, object]) -> None:
    # The driver's own BEGIN comes too late (before the first write, not the first read); the events below emit it.
    connection.isolation_level = None
    # SQLite's own lower() knows ASCII only
    connection.create_function("lower", 1, _lower, deterministic=True)
    cursor = connection.cursor()
    for name, value in {"busy_timeout": BUSY_SECONDS * 1000, "foreign_keys": "ON", **pragmas}.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _prepare_reader(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    _prepare(connection, {"query_only": "ON"})


def _prepare_writer(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # FULL: an accepted experiment is on the disk before the answer is sent, even if the power fails a moment later.
    _prepare(connection, {"journal_mode": "WAL", "synchronous": "FULL", "journal_size_limit": 64 << 20})


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _read_only(connection: Connection) -> None:
    connection.execute(text("SET TRANSACTION READ ONLY"))


def _take_turn(connection: Connection) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})"))


@contextmanager
def _translated(*, only_reads: bool = False) -> Iterator[None]:
    """Translate a database error into an EpochalError with a fix.

    `only_reads` is of a transaction that is read-only itself: a write that is refused in it says nothing of the server.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("every database connection is in use", fix="try again", retry_after_seconds=5) from error
    except DBAPIError as error:
        raise translate(error, only_reads=only_reads) from error
