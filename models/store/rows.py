"""Helpers shared by the store's modules: load a row, check the fencing number, add an event."""

from datetime import datetime
from typing import Protocol

from sqlalchemy.orm import Session, lazyload

from models.errors import LeaseLost, NotFound
from models.plain import JsonObject
from models.store import webhooks
from models.store.columns import now
from models.store.states import EventKind, Status
from models.store.tables import Event, Experiment


class Lease(Protocol):
    """The fencing information that a write needs: a Claim, or a RunningRun that a reaper found."""

    @property
    def experiment_id(self) -> int:
        """The experiment of the run."""

    @property
    def run_id(self) -> int:
        """The run."""

    @property
    def attempt(self) -> int:
        """The fencing number of the claim."""


def load(session: Session, experiment_id: int) -> Experiment:
    """The experiment as the database has it now, or NotFound."""
    # SQLite's integers end at 2**63 - 1; a larger id is one that does not exist, not an overflow.
    found = session.get(Experiment, experiment_id, populate_existing=True) if 0 < experiment_id < 2**63 else None
    if found is None:
        raise not_found(experiment_id)
    return found


def not_found(experiment_id: int) -> NotFound:
    """The error for an id that no experiment has."""
    return NotFound(f"there is no experiment {experiment_id}", fix="GET /api/v1/experiments lists them")


def fenced(session: Session, lease: Lease) -> Experiment:
    """The experiment, if this lease still owns its run; raises LeaseLost otherwise. Call it in a writing session."""
    only_it = [lazyload(Experiment.tag_rows)]
    experiment = session.get(Experiment, lease.experiment_id, populate_existing=True, options=only_it)
    if experiment is None:
        raise LeaseLost(f"experiment {lease.experiment_id} was deleted")
    check_lease(lease, experiment.attempt, experiment.status)
    return experiment


def check_lease(lease: Lease, attempt: int, status: Status) -> None:
    """Raise LeaseLost unless the experiment runs, and in this attempt."""
    if attempt != lease.attempt:
        raise LeaseLost(f"experiment {lease.experiment_id} is at attempt {attempt}; this was attempt {lease.attempt}")
    if status is not Status.RUNNING:
        raise LeaseLost(f"attempt {lease.attempt} of experiment {lease.experiment_id} ended: it is {status}")


def touch(experiment: Experiment) -> datetime:
    """Mark the row as changed, for caches; returns the time."""
    experiment.revision += 1
    experiment.updated_at = now()
    return experiment.updated_at


def add_event(session: Session, experiment_id: int, kind: EventKind, data: JsonObject) -> Event:
    """Add an event."""
    event = Event(experiment_id=experiment_id, kind=kind, data=data)
    session.add(event)
    return event


def set_status(session: Session, experiment: Experiment, status: Status, reason: str | None = None) -> datetime:
    """Change the experiment's status, add an event, and notify webhooks of its end; returns the time."""
    experiment.status = status
    experiment.reason = reason
    experiment.cancel_requested = False
    moment = touch(experiment)
    experiment.finished_at = moment if status.terminal else None
    if status.terminal:
        experiment.stop_requested = None
    if status is Status.QUEUED:
        experiment.progress = None
    add_state_event(session, experiment)
    if status.terminal:
        webhooks.announce_experiment(session, experiment)
    return moment


def add_state_event(session: Session, experiment: Experiment) -> None:
    """Add the event of the experiment's present state."""
    data: JsonObject = {"status": experiment.status.value, "attempt": experiment.attempt, "reason": experiment.reason}
    if experiment.cancel_requested:
        data["cancel_requested"] = True
    add_event(session, experiment.id, EventKind.STATE, data)
