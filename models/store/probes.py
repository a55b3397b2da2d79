"""Probes: short measurements that workers make at once, beside the queue. The database is their queue."""

from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from models.errors import NotFound
from models.plain import finite
from models.spec.experiment import ExperimentSpec
from models.store.columns import now
from models.store.states import ProbeKind, ProbeStatus
from models.store.tables import Probe


class RunningProbe(NamedTuple):
    """A probe that a worker holds; a reaper watches whether `heartbeat` moves."""

    probe_id: int
    heartbeat: int
    worker: str


def create(
    session: Session,
    kind: ProbeKind,
    spec: ExperimentSpec,
    options: dict[str, Any] | None = None,
    owner: str | None = None,
) -> Probe:
    """Ask for a measurement."""
    probe = Probe(
        kind=ProbeKind(kind), spec=spec.as_json(), options=options or {}, status=ProbeStatus.QUEUED, owner=owner
    )
    session.add(probe)
    session.flush()
    return probe


def get(session: Session, probe_id: int) -> Probe:
    """One probe, or NotFound."""
    found = session.get(Probe, probe_id, populate_existing=True) if 0 < probe_id < 2**63 else None
    if found is None:
        raise NotFound(f"there is no measurement {probe_id}")
    return found


def list_page(
    session: Session, kind: ProbeKind, *, status: ProbeStatus | None, before: int | None, limit: int
) -> tuple[list[Probe], bool, int]:
    """Probes of a kind, the newest first, from below an id on; whether there are more; and how many in all."""
    wanted = [Probe.kind == kind, *([Probe.status == status] if status else [])]
    total = session.scalar(select(func.count()).select_from(Probe).where(*wanted)) or 0
    query = select(Probe).where(*wanted).order_by(Probe.id.desc()).limit(limit + 1)
    found = list(session.scalars(query if before is None else query.where(Probe.id < before)))
    return found[:limit], len(found) > limit, total


def count_waiting(session: Session, kind: ProbeKind) -> int:
    """How many probes of a kind no worker has taken yet."""
    query = select(func.count()).where(Probe.kind == kind, Probe.status == ProbeStatus.QUEUED)
    return session.scalar(query) or 0


def count_unfinished(session: Session, kind: ProbeKind, owner: str) -> int:
    """How many probes of a kind somebody has that wait or are being measured, for quotas."""
    unfinished = Probe.status.in_([ProbeStatus.QUEUED, ProbeStatus.RUNNING])
    return session.scalar(select(func.count()).where(Probe.kind == kind, Probe.owner == owner, unfinished)) or 0


def any_waiting(session: Session) -> bool:
    """Whether a probe waits: asked often, so without the writers' lock."""
    return session.scalar(select(Probe.id).where(Probe.status == ProbeStatus.QUEUED).limit(1)) is not None


def claim_next(session: Session, worker: str) -> Probe | None:
    """Take the oldest probe that waits; None when none does."""
    oldest = select(Probe).where(Probe.status == ProbeStatus.QUEUED).order_by(Probe.id).limit(1)
    probe = session.scalar(oldest.execution_options(populate_existing=True))
    if probe is not None:
        probe.status, probe.claimed_by = ProbeStatus.RUNNING, worker
    return probe


def beat(session: Session, probe_id: int) -> None:
    """Show that the worker lives."""
    session.execute(update(Probe).where(Probe.id == probe_id).values(heartbeat=Probe.heartbeat + 1))


def running(session: Session) -> list[RunningProbe]:
    """Every probe that a worker holds."""
    query = select(Probe.id, Probe.heartbeat, Probe.claimed_by).where(Probe.status == ProbeStatus.RUNNING)
    return [
        RunningProbe(identifier, heartbeat, worker or "") for identifier, heartbeat, worker in session.execute(query)
    ]


def give_back(session: Session, probe_id: int) -> None:
    """Let another worker make a measurement that this one, or one that was lost, has not finished."""
    session.execute(
        update(Probe)
        .where(Probe.id == probe_id, Probe.status == ProbeStatus.RUNNING)
        .values(status=ProbeStatus.QUEUED, claimed_by=None)
    )


def finish(session: Session, probe_id: int, result: dict[str, Any]) -> bool:
    """Keep the result. False, and nothing kept, when the probe has ended already."""
    return _end(session, probe_id, ProbeStatus.COMPLETED, result=finite(result))


def fail(session: Session, probe_id: int, reason: str) -> bool:
    """Keep why there is no result. False, and nothing kept, when the probe has ended already."""
    return _end(session, probe_id, ProbeStatus.FAILED, reason=reason)


def _end(session: Session, probe_id: int, status: ProbeStatus, **values: Any) -> bool:
    probe = get(session, probe_id)
    if probe.status in (ProbeStatus.COMPLETED, ProbeStatus.FAILED):
        return False
    probe.status, probe.finished_at = status, now()
    for name, value in values.items():
        setattr(probe, name, value)
    return True
