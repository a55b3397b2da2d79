"""Leases of experiments by workers: the next one in the queue, claim, heartbeat, end.

A claim gets an attempt number. Every write of that attempt carries it and raises LeaseLost once the experiment has a
later attempt, so a worker that was suspended cannot overwrite anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from models.environment import Environment
from models.errors import LeaseLost
from models.findings import VerdictJson
from models.notices import NoticeCode, NoticeData
from models.plain import finite
from models.progress import RunProgress, TestResult
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from models.store import artifacts
from models.store.artifacts import ArtifactRecord
from models.store.columns import now
from models.store.rows import Lease, add_event, check_lease, fenced, set_status, touch
from models.store.states import EventKind, RunStatus, Status
from models.store.tables import EpochRow, Event, Experiment, Run

Span = tuple[datetime, datetime | None]
"""When an attempt began, and when it ended."""
EACH = Run.__table__.c
SPANS = (
    select(EACH.experiment_id, EACH.started_at, EACH.ended_at)
    .where(EACH.experiment_id.in_(bindparam("ids", expanding=True)))
    .order_by(EACH.experiment_id, EACH.attempt)
)
NEXT = (
    select(Experiment.id)
    .where(Experiment.status == Status.QUEUED)
    .order_by(Experiment.enqueued_at.is_(None), Experiment.enqueued_at, Experiment.id)
    .limit(1)
)
OF_EXPERIMENT = select(Run).where(Run.experiment_id == bindparam("id")).order_by(Run.attempt)


@dataclass(frozen=True)
class Claim:
    """A lease on one experiment: its spec, the checkpoints to resume from, and the attempt number."""

    experiment_id: int
    run_id: int
    attempt: int
    worker: str
    spec: ExperimentSpec
    checkpoints: list[ArtifactRecord]
    """Newest first."""
    start_epoch: int
    """The number of epochs in the newest checkpoint; 0 without one."""


class RunningRun(NamedTuple):
    """A run with a lease. A reaper watches whether `heartbeat` moves."""

    experiment_id: int
    run_id: int
    attempt: int
    heartbeat: int
    worker: str


class Requests(NamedTuple):
    """Requests to a run: to cancel, or to stop early."""

    cancel: bool
    """To end after its current step."""
    stop: bool
    """To end early with what it has, as completed."""


def next_queued(session: Session) -> int | None:
    """The experiment whose turn it is; None when none is queued.

    The order is that in which messages were first sent. A run that was interrupted keeps its place, which is before
    all that waited for it. What has no message yet comes last.
    """
    return session.scalar(NEXT)


def claim(
    session: Session,
    experiment_id: int,
    worker: str,
    max_attempts: int,
) -> Claim | None:
    """Take a queued experiment; None when it is not queued.

    An experiment that cannot be trained any more (its attempts are used up, or this version does not read its spec)
    is settled as failed instead.
    """
    experiment = session.get(Experiment, experiment_id, populate_existing=True)
    if experiment is None or experiment.status is not Status.QUEUED:
        return None
    if experiment.failed_attempts >= max_attempts:
        reason = f"{experiment.failed_attempts} attempts ended without a result; {max_attempts} are allowed"
        set_status(session, experiment, Status.FAILED, reason)
        return None
    try:
        spec = load_spec(experiment.spec)
    except ValueError as error:
        set_status(session, experiment, Status.FAILED, f"this version cannot read the stored spec: {error}")
        return None
    checkpoints = artifacts.checkpoints(session, experiment_id)
    start_epoch = checkpoints[0].epoch if checkpoints else 0
    experiment.attempt += 1
    run = Run(
        experiment_id=experiment_id,
        attempt=experiment.attempt,
        max_attempts=max_attempts,
        worker=worker,
        status=RunStatus.RUNNING,
        start_epoch=start_epoch,
    )
    session.add(run)
    experiment.progress = {
        "epoch": start_epoch,
        "epochs": experiment.spec["epochs"],
        "step": 0,
        "steps": None,
        "seconds_left": None,
        "images_per_second": None,
        "phase": "starting",
    }
    moment = set_status(session, experiment, Status.RUNNING)
    experiment.started_at = experiment.started_at or moment
    experiment.enqueued_at = experiment.enqueued_at or moment  # the sender of its message has not recorded it yet
    session.flush()
    return Claim(experiment_id, run.id, experiment.attempt, worker, spec, checkpoints, start_epoch)


def renew(session: Session, lease: Lease, progress: RunProgress | None = None) -> Requests:
    """Renew the heartbeat and store the progress. Returns what is asked of the run."""
    query = select(Experiment.attempt, Experiment.status, Experiment.cancel_requested, Experiment.stop_requested)
    found = session.execute(query.where(Experiment.id == lease.experiment_id)).one_or_none()
    if found is None:
        raise LeaseLost(f"experiment {lease.experiment_id} was deleted")
    attempt, status, cancel_requested, stop_requested = found
    check_lease(lease, attempt, status)
    session.execute(update(Run).where(Run.id == lease.run_id).values(heartbeat=Run.heartbeat + 1))
    if progress is not None:
        changed = {"progress": finite(progress), "revision": Experiment.revision + 1, "updated_at": now()}
        session.execute(update(Experiment).where(Experiment.id == lease.experiment_id).values(changed))
    return Requests(bool(cancel_requested), stop_requested is not None)


def settle(
    session: Session, lease: Lease, status: Status, *, reason: str | None = None, test: TestResult | None = None
) -> None:
    """End the run and the experiment with a terminal status."""
    status = Status(status)
    if not status.terminal:
        raise ValueError(f"{status} is not terminal; hand_back() queues a run again")
    experiment = fenced(session, lease)
    if test is not None:
        experiment.test = finite(test)
    if status is Status.COMPLETED and reason is not None:  # it was asked to end early
        reason = experiment.stop_requested or reason
    _end(session, lease, experiment, RunStatus(status.value), reason)
    set_status(session, experiment, status, reason)


def hand_back(session: Session, lease: Lease, reason: str, *, counts: bool) -> Status:
    """Requeue the experiment at its place, for the next worker to continue from the last checkpoint.

    `counts`: whether the attempt was lost (its process or worker died, hung or fell silent), and not handed back at a
    shutdown. When the claim's limit of lost attempts is reached, the experiment fails. One with a requested cancel is
    cancelled. Returns the experiment's status.
    """
    experiment = fenced(session, lease)
    run = _end(session, lease, experiment, RunStatus.LOST if counts else RunStatus.HANDED_BACK, reason)
    experiment.failed_attempts += counts
    if experiment.cancel_requested:
        set_status(session, experiment, Status.CANCELLED, "cancelled while it ran")
    elif experiment.failed_attempts >= run.max_attempts:
        times = f"{experiment.failed_attempts} attempts" if experiment.failed_attempts > 1 else "1 attempt"
        set_status(session, experiment, Status.FAILED, f"{reason} (given up after {times})")
    else:
        set_status(session, experiment, Status.QUEUED)
    return experiment.status


def running(session: Session) -> list[RunningRun]:
    """List the runs with a lease."""
    query = (
        select(Run.experiment_id, Run.id, Run.attempt, Run.heartbeat, Run.worker)
        .where(Run.status == RunStatus.RUNNING)
        .order_by(Run.id)
    )
    return [RunningRun(*row) for row in session.execute(query)]


def list_for(session: Session, experiment_id: int) -> list[Run]:
    """The attempts at an experiment, the first one first."""
    return list(session.scalars(OF_EXPERIMENT, {"id": experiment_id}))


def spans_of(session: Session, ids: Sequence[int]) -> dict[int, list[Span]]:
    """When the attempts at several experiments began and ended, by one query; an empty list for one without any."""
    found: dict[int, list[Span]] = {identifier: [] for identifier in ids}
    for identifier, began, ended in session.execute(SPANS, {"ids": ids}):
        found[identifier].append((began, ended))
    return found


def set_verdict(session: Session, lease: Lease, verdict: VerdictJson) -> None:
    """Store the verdict with an event. The previous verdict's event is deleted: thousands would fill the database."""
    experiment = fenced(session, lease)
    told = select(Event.id).where(Event.experiment_id == lease.experiment_id, Event.kind == EventKind.VERDICT)
    before = session.scalar(told.order_by(Event.id.desc()).limit(1))
    if before is not None:
        session.execute(delete(Event).where(Event.id == before))
    experiment.verdict = plain = finite(verdict)
    touch(experiment)
    add_event(session, lease.experiment_id, EventKind.VERDICT, plain)


def set_environment(session: Session, lease: Lease, environment: Environment) -> None:
    """Store the run's environment: versions, device, threads, dataset fingerprint."""
    experiment = fenced(session, lease)
    experiment.environment = dict(environment)
    fingerprint = environment.get("dataset_fingerprint")
    if isinstance(fingerprint, str):
        experiment.dataset_fingerprint = fingerprint
    touch(experiment)
    session.execute(update(Run).where(Run.id == lease.run_id).values(environment=dict(environment)))


def add_joules(session: Session, lease: Lease, joules: float) -> None:
    """Add to the energy in the experiment's environment; without an environment nothing is stored."""
    experiment = fenced(session, lease)
    if experiment.environment is not None:
        before = experiment.environment.get("joules")
        total = joules + (before if isinstance(before, int | float) else 0.0)
        experiment.environment = {**experiment.environment, "joules": round(total, 1)}
        touch(experiment)


def notice(session: Session, lease: Lease, code: NoticeCode, text: str, data: NoticeData) -> None:
    """Add a notice about the run, as an event."""
    touch(fenced(session, lease))
    add_event(session, lease.experiment_id, EventKind.NOTICE, {"code": code.value, "text": text, "data": finite(data)})


def _end(session: Session, lease: Lease, experiment: Experiment, status: RunStatus, reason: str | None) -> Run:
    run = session.get_one(Run, lease.run_id, populate_existing=True)
    run.status, run.reason, run.ended_at = status, reason, now()
    done = session.scalar(select(func.max(EpochRow.epoch)).where(EpochRow.experiment_id == lease.experiment_id))
    if experiment.progress is not None:  # set by the claim
        experiment.progress = {**experiment.progress, "epoch": done or 0, "seconds_left": None, "phase": status.value}
    return run
