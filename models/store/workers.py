"""Registration and heartbeats of workers."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models.store.columns import now
from models.store.tables import WorkerRow


def beat(session: Session, name: str, *, host: str, pid: int, device: str) -> None:
    """Register a worker or renew its heartbeat."""
    row = session.get(WorkerRow, name, populate_existing=True)
    if row is None:
        row = WorkerRow(name=name, heartbeat=0)
        session.add(row)
    row.host, row.pid, row.device = host, pid, device
    row.heartbeat += 1
    row.seen_at = now()


def leave(session: Session, name: str) -> None:
    """Remove a worker that has stopped."""
    session.execute(delete(WorkerRow).where(WorkerRow.name == name))


def live(session: Session, within_seconds: float = 15.0) -> list[WorkerRow]:
    """Workers seen lately, by this machine's clock; watch `heartbeat` where clocks cannot be trusted."""
    span = timedelta(seconds=within_seconds)
    moment = now()
    query = select(WorkerRow).where(WorkerRow.seen_at > moment - span, WorkerRow.seen_at < moment + span)
    return list(session.scalars(query.order_by(WorkerRow.name)))
