"""Measurements that a worker makes beside the queue: the pre-flight of a spec, and learning rate range tests."""

import re
import time
from typing import Annotated, Any

import anyio
from anyio import to_thread
from celery import Celery
from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Conflict, EpochalError, InvalidRequest, NotFound, TooManyRequests, Unavailable
from models.spec.parse import load_spec, model_label
from models.store import Store, probes
from models.store.states import ProbeKind, ProbeStatus
from service.catalogue.inspector import Accepted
from service.health.check import live_worker_names
from service.http.access import Caller
from service.http.errors import invalid_fields
from service.http.queues import BoundedQueue
from service.measurements.documents import ProbeDocument, ProbePage, probe_document, probe_item

PREFLIGHT_SECONDS = 20.0
POLL_SECONDS = 0.1
PREFLIGHTS_A_KEY = 3
"""That wait at once, of the 8 that all callers may have."""
MAX_WAITING_TESTS = 20
MAX_TESTS_A_KEY = 5
"""Learning-rate tests that one key may have waiting or being measured: others find room among MAX_WAITING_TESTS."""
RANGE_TEST_SECONDS = 20
"""About what one takes."""
DEFAULT_RANGE = {"lr_min": 1e-6, "lr_max": 1.0, "steps": 100}
BOUNDS: dict[str, tuple[float, float]] = {"lr_min": (1e-12, 100), "lr_max": (1e-12, 100), "steps": (10, 2000)}


class PreflightDocument(BaseModel):
    """What an experiment would cost, before it is queued. The worker's own measurements stand beside the estimates."""

    model_config = ConfigDict(extra="allow")

    warnings: list[dict[str, Any]] = Field(description="What is odd about the spec.")


class Measurer:
    """Has a worker try a few real steps of a spec before it is queued."""

    def __init__(self, store: Store, celery: Celery, writes: BoundedQueue) -> None:
        self._store = store
        self._celery = celery
        self._writes = writes
        self.queue = BoundedQueue(
            "pre-flights", places=8, share=PREFLIGHTS_A_KEY, max_waiting=0, retry_after_seconds=10
        )

    async def measure(self, accepted: Accepted, caller: Caller) -> PreflightDocument:
        """Ask a worker and wait for what it finds. Raises Unavailable where none answers in time."""
        if not await to_thread.run_sync(live_worker_names, self._store, self._celery):
            raise Unavailable(
                "no worker is there to measure it",
                fix="start one: `epochal up`, or `epochal worker`",
                retry_after_seconds=10,
            )
        async with self.queue.place(caller.name):
            probe_id = await self._writes.run(_ask, self._store, accepted, caller)
            deadline = time.monotonic() + PREFLIGHT_SECONDS
            while time.monotonic() < deadline:
                document = await to_thread.run_sync(_read, self._store, probe_id)
                if document.status is ProbeStatus.COMPLETED:
                    result = {**accepted.summary, **(document.result or {})}
                    return PreflightDocument(**result, warnings=accepted.warnings)
                if document.status is ProbeStatus.FAILED:
                    reason = f"the pre-flight failed: {document.reason}"
                    raise Unavailable(reason, fix="GET /readyz shows what is amiss")
                await anyio.sleep(POLL_SECONDS)
        raise Unavailable(
            f"no worker measured this within {PREFLIGHT_SECONDS:g} s", fix="try again", retry_after_seconds=10
        )


async def get_measurer(request: Request) -> Measurer:
    """What asks workers for measurements."""
    measurer: Measurer = request.app.state.measurer
    return measurer


MeasurerDep = Annotated[Measurer, Depends(get_measurer)]


def start_range_test(store: Store, accepted: Accepted, options: dict[str, Any], caller: Caller) -> ProbeDocument:
    """Ask for a learning rate range test.

    Raises TooManyRequests when the caller has as many as one key may have, Unavailable when many wait already.
    """
    with store.writing() as session:
        if caller.name is not None:
            its_own = probes.count_unfinished(session, ProbeKind.LR_TEST, caller.name)
            if its_own >= MAX_TESTS_A_KEY:
                raise TooManyRequests(
                    f"'{caller.name}' has {its_own} learning-rate tests that wait or run, of {MAX_TESTS_A_KEY} allowed",
                    fix="wait for their results, then send it again",
                    retry_after_seconds=RANGE_TEST_SECONDS,
                )
        waiting = probes.count_waiting(session, ProbeKind.LR_TEST)
        if waiting >= MAX_WAITING_TESTS:
            raise Unavailable(
                f"{waiting} learning-rate tests wait already",
                fix="try again later",
                retry_after_seconds=RANGE_TEST_SECONDS,
            )
        return probe_document(probes.create(session, ProbeKind.LR_TEST, accepted.spec, options, caller.name))


def get_range_test(store: Store, probe_id: int) -> ProbeDocument:
    """A learning-rate test, or NotFound."""
    return _read(store, probe_id, ProbeKind.LR_TEST)


def list_range_tests(store: Store, status: ProbeStatus | None, cursor: str | None, limit: int) -> ProbePage:
    """A page of learning-rate tests, the newest first. Raises InvalidRequest for a damaged cursor."""
    if cursor is not None and not re.fullmatch(r"[1-9][0-9]{0,17}", cursor):
        raise InvalidRequest("the cursor is damaged", fix="use `next` of a list as it is, or start anew")
    before = None if cursor is None else int(cursor)
    with store.reading() as session:
        rows, more, total = probes.list_page(session, ProbeKind.LR_TEST, status=status, before=before, limit=limit)
        items = [probe_item(row, _label_of(row.spec)) for row in rows]
    return ProbePage(items=items, next=str(items[-1].id) if more else None, total=total)


def _label_of(spec: dict[str, Any]) -> str:
    try:
        return model_label(load_spec(spec).model)
    except EpochalError:  # another version wrote it
        return str(spec["model"]["name"])


def finished_range_test(store: Store, probe_id: int) -> dict[str, Any]:
    """The result of a learning-rate test. Raises Conflict while there is none."""
    document = get_range_test(store, probe_id)
    if document.result is None:
        reason = f": {document.reason}" if document.reason else ""
        raise Conflict(f"learning-rate test {probe_id} is {document.status}{reason}; there is no curve to draw")
    return document.result


def split_range(document: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A learning-rate test's body as the spec it tests and the range it covers. Raises InvalidRequest."""
    if not isinstance(document, dict):
        raise invalid_fields([{"field": "body", "message": "must be an object with keys"}])
    spec = {name: value for name, value in document.items() if name not in DEFAULT_RANGE}
    options = {name: document.get(name, default) for name, default in DEFAULT_RANGE.items()}
    wrong = [entry for name in options if (entry := _check_option(name, options[name]))]
    if wrong:
        raise invalid_fields(wrong)
    if options["lr_min"] >= options["lr_max"]:
        raise InvalidRequest(
            f"lr_min is {options['lr_min']:g} and lr_max {options['lr_max']:g}; the range must go up",
            fix="swap them",
            errors=[{"field": "lr_min", "message": "must be below lr_max"}],
        )
    return spec, options


def _check_option(name: str, value: Any) -> dict[str, Any] | None:
    low, high = BOUNDS[name]
    whole = name == "steps"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return {"field": name, "message": f"must be a{' whole' if whole else ''} number", "value": str(value)[:60]}
    if not low <= value <= high:
        nearest = min(max(value, low), high)
        return {"field": name, "message": f"must be from {low:g} to {high:g}, not {value:g}", "nearest": nearest}
    return None


def _ask(store: Store, accepted: Accepted, caller: Caller) -> int:
    with store.writing() as session:
        return probes.create(session, ProbeKind.PREFLIGHT, accepted.spec, owner=caller.name).id


def _read(store: Store, probe_id: int, kind: ProbeKind | None = None) -> ProbeDocument:
    with store.reading() as session:
        probe = probes.get(session, probe_id)
        if kind is not None and probe.kind is not kind:
            raise NotFound(f"there is no learning-rate test {probe_id}")
        return probe_document(probe)
