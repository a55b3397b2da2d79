"""Status and progress of several experiments in one cheap query, for live streams and gauges."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.progress import RunProgress
from models.store.states import Status
from models.store.tables import Experiment


class Glimpse(NamedTuple):
    """An experiment's status and progress."""

    status: Status
    reason: str | None
    progress: RunProgress | None


def glimpse(session: Session, ids: Collection[int]) -> dict[int, Glimpse]:
    """The state of each of these experiments that exists, by one query."""
    query = select(Experiment.id, Experiment.status, Experiment.reason, Experiment.progress)
    rows = session.execute(query.where(Experiment.id.in_(ids)))
    return {identifier: Glimpse(status, reason, progress) for identifier, status, reason, progress in rows}
