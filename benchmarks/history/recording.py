"""The recorded history: requests with answers, the database's content, and the injected faults."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select

from models.errors import EpochalError
from models.store import Store, runs
from models.store.tables import EpochRow, Experiment

Entry = dict[str, Any]

MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "grad_norm")
"""The series that are equal when an epoch is trained again."""
SNAPSHOT_SECONDS = 0.5


class History:
    """Entries in the order in which they ended; each is also a line of a file as soon as it is there."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the history began."""
        return round(time.monotonic() - self._began, 4)

    def add(self, kind: str, **members: Any) -> Entry:
        """Note something."""
        entry = {"kind": kind, **members}
        with self._lock:
            self.entries.append(entry)
            self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
            self._file.flush()
        return entry

    def count(self, kind: str) -> int:
        """How many entries of a kind there are."""
        with self._lock:
            return sum(entry["kind"] == kind for entry in self.entries)

    def close(self) -> None:
        self._file.close()


class Observer:
    """Takes snapshots of the database in the background: who owns which run, and who wrote which epoch."""

    def __init__(self, history: History, store: Callable[[], Store]) -> None:
        self._history, self._make_store = history, store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        store = self._make_store()
        last: dict[str, Any] = {}
        while not self._stop.wait(SNAPSHOT_SECONDS):
            try:
                now = take_snapshot(store)
            except EpochalError:  # the database is away
                continue
            changed = {number: found for number, found in now.items() if last.get(number) != found}
            if changed:
                self._history.add("snapshot", at=self._history.now(), experiments=changed)
            last = now
        store.dispose()


def take_snapshot(store: Store) -> dict[str, Any]:
    """Status, attempt, and the attempt that wrote each epoch, of every experiment that still changes."""
    with store.reading() as session:
        found: dict[str, Any] = {
            str(number): [status.value, attempt, []]
            for number, status, attempt in session.execute(
                select(Experiment.id, Experiment.status, Experiment.attempt)
            ).all()
        }
        epochs = select(EpochRow.experiment_id, EpochRow.epoch, EpochRow.attempt)
        for number, epoch, attempt in session.execute(epochs.order_by(EpochRow.experiment_id, EpochRow.epoch)).all():
            found[str(number)][2].append([epoch, attempt])
    return found


def final_state(store: Store) -> dict[str, Any]:
    """Every experiment as it is stored at the end."""
    with store.reading() as session:
        state: dict[str, Any] = {}
        for row in session.scalars(select(Experiment)).all():
            epochs = session.scalars(
                select(EpochRow).where(EpochRow.experiment_id == row.id).order_by(EpochRow.epoch)
            ).all()
            state[str(row.id)] = {
                "name": row.name,
                "tags": row.tags,
                "status": row.status.value,
                "reason": row.reason,
                "attempt": row.attempt,
                "reproduces": row.reproduces,
                "wanted": row.spec["epochs"],
                "epochs": [[each.epoch, each.attempt, *(getattr(each, name) for name in MEASURED)] for each in epochs],
                "runs": [
                    {
                        "attempt": run.attempt,
                        "status": run.status.value,
                        "worker": run.worker,
                        "started": run.started_at.timestamp(),
                        "ended": None if run.ended_at is None else run.ended_at.timestamp(),
                    }
                    for run in sorted(runs.list_for(session, row.id), key=lambda run: run.attempt)
                ],
            }
    return state
