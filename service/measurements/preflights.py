"""Pre-flights: a worker runs a few training steps of a spec before it is queued."""

import time
from typing import Annotated

import anyio
from anyio import to_thread
from celery import Celery
from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from models.errors import Unavailable
from models.plain import JsonObject
from models.store import Store, measurements
from models.store.states import MeasurementKind, MeasurementStatus
from models.store.tables import Measurement
from service.catalogue.accepted import Accepted
from service.health.check import live_worker_names
from service.http.access import Caller
from service.http.prefix import with_prefix_in_suggestions
from service.http.queues import BoundedQueue

PREFLIGHT_SECONDS = 20.0
POLL_SECONDS = 0.1
PREFLIGHTS_A_KEY = 3
"""The most waiting pre-flights of one caller; 8 of all callers may wait."""


class PreflightDocument(BaseModel):
    """The cost of an experiment before it is queued: estimates, and a worker's measurements."""

    model_config = ConfigDict(extra="allow")

    warnings: list[JsonObject] = Field(description="Warnings about the spec.")


class Preflights:
    """Requests pre-flights from workers and waits for the results."""

    def __init__(self, store: Store, celery: Celery, writes: BoundedQueue) -> None:
        self._store = store
        self._celery = celery
        self._writes = writes
        self.queue = BoundedQueue(
            "pre-flights", places=8, share=PREFLIGHTS_A_KEY, max_waiting=0, retry_after_seconds=10
        )

    async def measure(self, accepted: Accepted, caller: Caller) -> PreflightDocument:
        """Request a pre-flight and wait for its result. Raises Unavailable if no worker answers in time."""
        result = await self.ask(MeasurementKind.PREFLIGHT, accepted, caller)
        return PreflightDocument(**{**accepted.size, **result}, warnings=with_prefix_in_suggestions(accepted.warnings))

    async def ask(self, kind: MeasurementKind, accepted: Accepted, caller: Caller) -> JsonObject:
        """Have a worker measure something of a spec now, and wait. Raises Unavailable if none answers in time."""
        if not await to_thread.run_sync(live_worker_names, self._store, self._celery):
            raise Unavailable(
                "no worker is running to measure it",
                fix="start one: `epochal up`, or `epochal worker`",
                retry_after_seconds=10,
            )
        async with self.queue.place(caller.name):
            measurement_id = await self._writes.run(_ask, self._store, kind, accepted, caller)
            deadline = time.monotonic() + PREFLIGHT_SECONDS
            while time.monotonic() < deadline:
                found = await to_thread.run_sync(_read, self._store, measurement_id)
                if found.status is MeasurementStatus.COMPLETED:
                    return dict(found.result or {})
                if found.status is MeasurementStatus.FAILED:
                    reason = (
                        f"the {'picture' if kind is MeasurementKind.AUGMENTED else 'pre-flight'} failed: {found.reason}"
                    )
                    raise Unavailable(reason, fix="GET /readyz names the part that has failed")
                await anyio.sleep(POLL_SECONDS)
        raise Unavailable(
            f"no worker measured this within {PREFLIGHT_SECONDS:g} s", fix="try again", retry_after_seconds=10
        )


async def get_preflights(request: Request) -> Preflights:
    """Return the service that requests pre-flights."""
    preflights: Preflights = request.app.state.preflights
    return preflights


PreflightsDep = Annotated[Preflights, Depends(get_preflights)]


def _ask(store: Store, kind: MeasurementKind, accepted: Accepted, caller: Caller) -> int:
    with store.writing() as session:
        return measurements.create(session, kind, accepted.spec, owner=caller.name).id


def _read(store: Store, measurement_id: int) -> Measurement:
    with store.reading() as session:
        return measurements.get(session, measurement_id)
