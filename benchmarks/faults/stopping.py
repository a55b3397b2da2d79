"""Processes that are stopped, as a laptop's are when it sleeps."""

import os
import signal
from pathlib import Path

from models.store.sqlite import dbapi


def stop_outside_transaction(database: Path, *pids: int) -> bool:
    """SIGSTOP processes, unless one of them holds the database's lock just now, which nobody else could take then.

    Returns whether they are stopped; if not, they run on, and it can be tried again.
    """
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    connection = dbapi.connect(str(database), isolation_level=None, timeout=1.0)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except dbapi.OperationalError:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        return False
    finally:
        connection.close()
    return True
