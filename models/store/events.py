"""Events of experiments, in order, which the live streams send. Ids only grow and are never reused."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.store.tables import Event


def since(session: Session, last_id: int, experiment_id: int | None = None, limit: int = 1000) -> list[Event]:
    """Events after `last_id`, the oldest first, of one experiment or of all."""
    query = select(Event).where(Event.id > min(max(last_id, 0), 2**63 - 1))
    if experiment_id is not None:
        query = query.where(Event.experiment_id == experiment_id)
    return list(session.scalars(query.order_by(Event.id).limit(limit)))


def latest_id(session: Session) -> int:
    """Id of the newest event; 0 when there is none."""
    return session.scalar(select(func.max(Event.id))) or 0
