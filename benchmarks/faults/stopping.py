"""Stopping processes (SIGSTOP), as on a sleeping laptop, and locking the database from outside."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from models.store.sqlite import dbapi
from models.store.store import WRITERS_LOCK


def stop_outside_transaction(database: URL, *pids: int) -> bool:
    """SIGSTOP processes at a moment when none of them holds the database's write lock.

    Returns whether they are stopped; if not, they run on, and it can be tried again.
    """
    for pid in pids:
        with suppress(ProcessLookupError):  # it has just ended, which the caller looks at
            os.kill(pid, signal.SIGSTOP)
    with locked(database, 1.0) as taken:
        pass
    if not taken:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return taken


@contextmanager
def locked(database: URL, timeout_seconds: float) -> Iterator[bool]:
    """Hold the lock that every writer takes. Gives False if others hold it for longer than the timeout."""
    if database.get_backend_name() == "sqlite":
        connection = dbapi.connect(str(database.database), isolation_level=None, timeout=timeout_seconds)
        try:
            yield _succeeds(lambda: connection.execute("BEGIN IMMEDIATE"), dbapi.OperationalError)
        finally:
            connection.close()
        return
    engine = create_engine(database, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as session:
        session.execute(text(f"SET lock_timeout = {int(timeout_seconds * 1000)}"))
        lock = text(f"SELECT pg_advisory_lock({WRITERS_LOCK})")
        yield _succeeds(lambda: session.execute(lock), OperationalError)


def _succeeds(action: Callable[[], object], failure: type[Exception]) -> bool:
    try:
        action()
    except failure:
        return False
    return True
