"""Measurements (pre-flights, learning-rate tests): workers take them from this table, outside the training queue."""

from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from models.errors import NotFound
from models.measurements import MeasurementOptions, MeasurementResult
from models.plain import finite
from models.spec.experiment import ExperimentSpec
from models.store.columns import now
from models.store.states import MeasurementKind, MeasurementStatus
from models.store.tables import Measurement

KEPT = 500
"""The most ended measurements of a kind that are kept for one owner. A result has up to 2,000 points (120 kB)."""
UNFINISHED = (MeasurementStatus.QUEUED, MeasurementStatus.RUNNING)
ENDED = (MeasurementStatus.COMPLETED, MeasurementStatus.FAILED)
LEFT_OVER = timedelta(days=1)
"""Age at which a measurement is deleted whose request should have deleted it."""


class RunningMeasurement(NamedTuple):
    """A measurement leased by a worker; a reaper watches whether `heartbeat` moves."""

    measurement_id: int
    heartbeat: int
    worker: str


def create(
    session: Session,
    kind: MeasurementKind,
    spec: ExperimentSpec,
    options: MeasurementOptions | None = None,
    owner: str | None = None,
) -> Measurement:
    """Create a measurement for a worker to take, and delete the oldest of its owner's that have ended beyond KEPT."""
    ended = select(Measurement.id).where(
        Measurement.kind == kind, Measurement.owner.is_not_distinct_from(owner), Measurement.status.in_(ENDED)
    )
    oldest_kept = session.scalar(ended.order_by(Measurement.id.desc()).offset(KEPT - 1).limit(1))
    if oldest_kept is not None:
        session.execute(delete(Measurement).where(Measurement.id.in_(ended.where(Measurement.id < oldest_kept))))
    measurement = Measurement(
        kind=MeasurementKind(kind),
        spec=spec.as_json(),
        options=dict(options or {}),
        status=MeasurementStatus.QUEUED,
        owner=owner,
    )
    session.add(measurement)
    session.flush()
    return measurement


def get(session: Session, measurement_id: int) -> Measurement:
    """One measurement, or NotFound."""
    found = session.get(Measurement, measurement_id, populate_existing=True) if 0 < measurement_id < 2**63 else None
    if found is None:
        raise NotFound(f"there is no measurement {measurement_id}")
    return found


def list_page(
    session: Session, kind: MeasurementKind, *, status: MeasurementStatus | None, before: int | None, limit: int
) -> tuple[list[Measurement], bool, int]:
    """Measurements of a kind, the newest first, from below an id on; whether there are more; and how many in all."""
    wanted = [Measurement.kind == kind, *([Measurement.status == status] if status else [])]
    total = session.scalar(select(func.count()).select_from(Measurement).where(*wanted)) or 0
    query = select(Measurement).where(*wanted).order_by(Measurement.id.desc()).limit(limit + 1)
    found = list(session.scalars(query if before is None else query.where(Measurement.id < before)))
    return found[:limit], len(found) > limit, total


def count_waiting(session: Session, kind: MeasurementKind) -> int:
    """How many measurements of a kind no worker has taken yet."""
    query = select(func.count()).where(Measurement.kind == kind, Measurement.status == MeasurementStatus.QUEUED)
    return session.scalar(query) or 0


def count_unfinished(session: Session, kind: MeasurementKind, owner: str) -> int:
    """Count an owner's unfinished measurements of a kind, for quotas."""
    unfinished = (Measurement.kind == kind, Measurement.owner == owner, Measurement.status.in_(UNFINISHED))
    return session.scalar(select(func.count()).where(*unfinished)) or 0


def any_waiting(session: Session) -> bool:
    """Whether a measurement is waiting. Called often, so it takes no write lock."""
    return (
        session.scalar(select(Measurement.id).where(Measurement.status == MeasurementStatus.QUEUED).limit(1))
        is not None
    )


def claim_next(session: Session, worker: str) -> Measurement | None:
    """Take the oldest measurement that waits; None when none does."""
    oldest = select(Measurement).where(Measurement.status == MeasurementStatus.QUEUED).order_by(Measurement.id).limit(1)
    measurement = session.scalar(oldest.execution_options(populate_existing=True))
    if measurement is not None:
        measurement.status, measurement.claimed_by = MeasurementStatus.RUNNING, worker
    return measurement


def beat(session: Session, measurement_id: int) -> None:
    """Renew the heartbeat."""
    session.execute(
        update(Measurement).where(Measurement.id == measurement_id).values(heartbeat=Measurement.heartbeat + 1)
    )


def running(session: Session) -> list[RunningMeasurement]:
    """List the measurements leased by workers."""
    query = select(Measurement.id, Measurement.heartbeat, Measurement.claimed_by).where(
        Measurement.status == MeasurementStatus.RUNNING
    )
    return [
        RunningMeasurement(identifier, heartbeat, worker or "")
        for identifier, heartbeat, worker in session.execute(query)
    ]


def give_back(session: Session, measurement_id: int) -> None:
    """Release an unfinished measurement, so that another worker makes it."""
    session.execute(
        update(Measurement)
        .where(Measurement.id == measurement_id, Measurement.status == MeasurementStatus.RUNNING)
        .values(status=MeasurementStatus.QUEUED, claimed_by=None)
    )


def finish(session: Session, measurement_id: int, result: MeasurementResult) -> bool:
    """Store the result. False, with nothing stored, if the measurement has ended already or is gone."""
    return _end(session, measurement_id, MeasurementStatus.COMPLETED, result=finite(result))


def fail(session: Session, measurement_id: int, reason: str) -> bool:
    """Store the reason of a failure. False, with nothing stored, if the measurement has ended already or is gone."""
    return _end(session, measurement_id, MeasurementStatus.FAILED, reason=reason)


def remove(session: Session, measurement_id: int) -> None:
    """Delete a measurement that is not needed any more, and those of its kind that have been left for a day."""
    row = get(session, measurement_id)
    old = Measurement.created_at < now() - LEFT_OVER
    session.execute(delete(Measurement).where(Measurement.kind == row.kind, (Measurement.id == row.id) | old))


def _end(session: Session, measurement_id: int, status: MeasurementStatus, **values: Any) -> bool:
    measurement = session.get(Measurement, measurement_id, populate_existing=True)
    if measurement is None or measurement.status in ENDED:
        return False
    measurement.status, measurement.finished_at = status, now()
    for name, value in values.items():
        setattr(measurement, name, value)
    return True
