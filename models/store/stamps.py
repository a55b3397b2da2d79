"""Change numbers of the database for validating caches, read without a transaction or thread in ten microseconds.

SQLite only. It has its own connection, never in a transaction and without a busy timeout: on a lock or an error the
number is None, and the caller reads the database instead.
"""

import json
from collections.abc import Sequence
from typing import Any

from models.store.sqlite import dbapi
from models.store.store import Store

LIST = """
    SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'events'), (SELECT count(*) FROM experiments),
           (SELECT sum(revision) FROM experiments WHERE id IN (SELECT value FROM json_each(?)))
"""
STUDY = """
    SELECT revision,
           (SELECT count(*) || ' ' || total(revision) FROM experiments
            WHERE id IN (SELECT experiment_id FROM study_runs WHERE study_id = studies.id)),
           (SELECT group_concat(status) FROM probes
            WHERE id IN (SELECT measurement FROM study_additions WHERE study_id = studies.id))
    FROM studies WHERE id = ?
"""


class Stamps:
    """Stamps of one experiment and of everything. Equal stamps, equal content. For one thread at a time."""

    def __init__(self, store: Store) -> None:
        self._connection = None
        if store.is_sqlite:
            self._connection = dbapi.connect(
                str(store.url.database), timeout=0, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA query_only = ON")

    def of_experiment(self, experiment_id: int) -> int | None:
        """Return the experiment's revision; None if there is none or it cannot be read now."""
        return self._ask("SELECT revision FROM experiments WHERE id = ?", experiment_id)

    def of_history(self, experiment_id: int) -> int | None:
        """Return the id of an experiment's last event (progress is none); 0 without one, None if it cannot be read."""
        return self._ask("SELECT coalesce(max(id), 0) FROM events WHERE experiment_id = ?", experiment_id)

    def of_study(self, study_id: int) -> tuple[Any, ...] | None:
        """Return what a study's document depends on; None if there is no such study or it cannot be read now.

        Whatever gives a study another run changes its revision, and a run that is deleted changes their number.
        """
        return self._row(STUDY, study_id)

    def of_everything(self) -> int | None:
        """Return a number that any process's commit changes; None if it cannot be read now."""
        return self._ask("PRAGMA data_version")

    def of_list(self, ids: Sequence[int]) -> tuple[Any, ...] | None:
        """Return what a list with these experiments on its page depends on; None if it cannot be read now.

        Whatever adds an experiment or moves it on a list adds an event, and ids of events are never reused. Deletions
        change the count. What is shown of those on the page changes with their revisions.
        """
        return self._row(LIST, json.dumps(ids))

    def _ask(self, statement: str, *values: int) -> int | None:
        found = self._row(statement, *values)
        return None if found is None else int(found[0])

    def _row(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        if self._connection is None:
            return None
        try:
            found: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        except dbapi.Error:
            return None
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
