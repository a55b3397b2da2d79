"""Whether the lab can do its work: broker, database, a live worker."""

from typing import Any

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from models import queue
from models.errors import EpochalError, Unavailable
from models.store import Store, experiments, workers
from service.instruments import Instruments


def check_readiness(store: Store, celery: Celery) -> dict[str, Any]:
    """What answers and what does not. Raises Unavailable, with the same in `checks`, unless everything does."""
    checks: dict[str, Any] = {
        "database": _database(store),
        "broker": {"ok": queue.ping(celery), "queued_messages": queue.queue_length(celery)},
    }
    names = live_worker_names(store, celery) if checks["database"]["ok"] else []
    checks["workers"] = {"ok": bool(names), "names": names}
    failing = [name for name, check in checks.items() if not check["ok"]]
    if failing:
        raise Unavailable(
            f"not ready: {', '.join(failing)} {'does' if len(failing) == 1 else 'do'} not answer",
            fix="start what is missing: `epochal up` starts all of it",
            retry_after_seconds=5,
            checks=checks,
        )
    return checks


def live_worker_names(store: Store, celery: Celery) -> list[str]:
    """Workers that were seen lately or, where clocks disagree, that answer now."""
    with store.reading() as session:
        names = [worker.name for worker in workers.live(session)]
    return names or queue.live_workers(celery)


def _database(store: Store) -> dict[str, Any]:
    check: dict[str, Any] = {"ok": True, "kind": store.url.get_backend_name(), "sqlite_version": store.sqlite_version}
    try:
        with store.reading() as session:
            workers.live(session)
    except (EpochalError, SQLAlchemyError) as error:
        check.update(ok=False, reason=str(getattr(error, "detail", type(error).__name__)))
    if not store.sqlite_safe:
        check["warning"] = (
            f"SQLite {store.sqlite_version} can damage a WAL database that several processes write; "
            "install pysqlite3, or use PostgreSQL"
        )
    return check


def measure(instruments: Instruments, store: Store, celery: Celery, num_streams: int) -> bytes:
    """Read the gauges and give everything in Prometheus' format."""
    with store.reading() as session:
        for status, count in experiments.count_by_status(session).items():
            instruments.experiments.labels(status.value).set(count)
        instruments.workers.set(len(workers.live(session)))
    length = queue.queue_length(celery)
    instruments.queue.set(-1 if length is None else length)
    instruments.streams.set(num_streams)
    return instruments.render()
