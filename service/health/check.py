"""Readiness check of the lab: database, broker, at least one live worker."""

import asyncio
import time
from collections.abc import Callable
from typing import NotRequired, TypedDict

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from models import queue
from models.errors import EpochalError, Unavailable
from models.store import Store, workers
from service.http.queues import BoundedQueue

FRESH_SECONDS = 1.0
PATIENCE_SECONDS = 3.0


class Check(TypedDict):
    """Whether one part of the lab answers, and details of it."""

    ok: bool
    reason: NotRequired[str]
    """Why not."""
    kind: NotRequired[str]
    sqlite_version: NotRequired[str | None]
    warning: NotRequired[str]
    queued_messages: NotRequired[int | None]
    names: NotRequired[list[str]]
    """Of the workers that answer."""


Checks = dict[str, Check]
"""By the part's name."""


class Readiness:
    """Cached readiness check: at most one check at a time and one a second, for any number of requests."""

    def __init__(self, store: Store, celery: Celery, *, check: Callable[[Store, Celery], Checks] | None = None) -> None:
        self._store = store
        self._celery = celery
        self._check = check or check_parts
        self._checks: Checks = {}
        self._checked_at = float("-inf")
        self._running: asyncio.Task[None] | None = None
        self._queue = BoundedQueue("checks", places=1)  # a broker that hangs must not take a request's thread

    async def checks(self) -> Checks:
        """Return the state of each part, at most a second old.

        A part that hangs (a host that drops packets) delays the answer by at most PATIENCE_SECONDS.
        """
        if time.monotonic() - self._checked_at < FRESH_SECONDS:
            return self._checks
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._ask())
        finished, _ = await asyncio.wait({self._running}, timeout=PATIENCE_SECONDS)
        if not finished:
            return {"checks": {"ok": False, "reason": f"have taken longer than {PATIENCE_SECONDS:g} s"}}
        self._running.result()
        return self._checks

    async def _ask(self) -> None:
        self._checks = await self._queue.run(self._check, self._store, self._celery)
        self._checked_at = time.monotonic()


def require_ready(checks: Checks, *, in_detail: bool) -> None:
    """Raise Unavailable unless every part answers; with `in_detail` it names those that do not and has `checks`."""
    failing = [name for name, check in checks.items() if not check["ok"]]
    if not failing:
        return
    if not in_detail:
        raise Unavailable("not ready", fix="send an API key for the reasons", retry_after_seconds=5)
    raise Unavailable(
        f"not ready: {'; '.join(_sentence(name, checks[name]) for name in failing)}",
        fix="start the parts that do not answer (`epochal up` starts all of them), or correct their addresses",
        retry_after_seconds=5,
        checks=checks,
    )


def _sentence(name: str, check: Check) -> str:
    """Describe a part's failure."""
    if name == "workers":
        return "no worker answers"
    return f"the {name} {str(check['reason']).removeprefix(f'the {name} ')}"


def check_parts(store: Store, celery: Celery) -> Checks:
    """Check the database, the broker and the workers; a part that does not answer takes seconds."""
    checks: Checks = {
        "database": _database(store),
        "broker": _broker(celery),
    }
    names = live_worker_names(store, celery) if checks["database"]["ok"] else []
    checks["workers"] = {"ok": bool(names), "names": names}
    return checks


def live_worker_names(store: Store, celery: Celery) -> list[str]:
    """List workers with a recent heartbeat; if there is none (clocks may differ), those that answer a ping."""
    with store.reading() as session:
        names = [worker.name for worker in workers.live(session)]
    return names or queue.live_workers(celery)


def _broker(celery: Celery) -> Check:
    if (trouble := queue.find_trouble(celery)) is not None:
        return {"ok": False, "queued_messages": None, "reason": trouble.reason}
    return {"ok": True, "queued_messages": queue.queue_length(celery)}


def _database(store: Store) -> Check:
    check: Check = {"ok": True, "kind": store.url.get_backend_name(), "sqlite_version": store.sqlite_version}
    try:
        with store.reading() as session:
            workers.live(session)
    except (EpochalError, SQLAlchemyError) as error:
        check["ok"] = False
        check["reason"] = str(getattr(error, "detail", f"raised {type(error).__name__}"))
    if not store.sqlite_safe:
        check["warning"] = (
            f"SQLite {store.sqlite_version} can damage a WAL database that several processes write; "
            "install pysqlite3, or use PostgreSQL"
        )
    return check
