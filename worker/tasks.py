"""The Celery task: claim an experiment, supervise its training, and store the outcome."""

from contextlib import suppress

import structlog

from models.energy import joules_used, read_counters
from models.errors import EpochalError, LeaseLost, StorageFull, Unavailable
from models.queue import TRAIN_TASK, enqueue
from models.store import Status, artifacts, experiments, runs
from models.store.rows import set_status
from worker import folders
from worker.app import app, current_runtime
from worker.lease import Lease, claim_to_json
from worker.messages import TrainJob
from worker.processes.nursery import NurseryError
from worker.runtime import Runtime
from worker.supervisor import End, Supervisor

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.5


@app.task(name=TRAIN_TASK)  # type: ignore[untyped-decorator]
def train(experiment_id: int) -> None:
    """Claim the experiment whose turn it is, train it in a forked process, and store the outcome.

    A message says that one more experiment waits, and `experiment_id` for which one it was sent. Which one is next is
    decided by the database, so that a run that was interrupted continues first. A surplus message does nothing.
    """
    runtime = current_runtime()
    if runtime.shutdown.is_set() or not runtime.wait_for_database():
        return  # a reaper enqueues it again
    try:
        claim = _claim_next(runtime)
    except (Unavailable, StorageFull) as error:
        log.warning("no experiment can be claimed; they stay queued", message=experiment_id, why=error.detail)
        _give_up_claim(runtime)
        return
    if claim is None:
        log.info("nothing is trained", message=experiment_id)
        return
    log.info("claimed", experiment=claim.experiment_id, attempt=claim.attempt, checkpoints=len(claim.checkpoints))
    runtime.training = True
    try:
        with Lease(runtime.store, claim, runtime.settings.lease_seconds) as lease:
            before = read_counters()
            end = _supervise(runtime, lease)
            if end.action != "leave" and (joules := joules_used(before, read_counters())) is not None:
                lease.add_joules(joules)
            _write_end(runtime, lease, end)
    finally:
        runtime.training = False


def _claim_next(runtime: Runtime) -> runs.Claim | None:
    """A claim, or None if nothing is to be trained. An experiment whose stored spec is invalid by now fails."""
    next_one = None
    try:
        with runtime.store.writing() as session:
            next_one = runs.next_queued(session)
            if next_one is None:
                return None
            return runs.claim(session, next_one, runtime.name, runtime.settings.max_attempts)
    except (Unavailable, StorageFull):
        raise
    except EpochalError as error:
        if next_one is None:
            raise
        with runtime.store.writing() as session:
            set_status(session, experiments.get(session, next_one), Status.FAILED, error.detail)
        return None


def _give_up_claim(runtime: Runtime) -> None:
    """Hand back a claim that may have been committed: the connection broke before the database confirmed it.

    No other process claims under this worker's name, and it does nothing else meanwhile.
    """
    while not runtime.shutdown.is_set():
        try:
            with runtime.store.reading() as session:
                held = [run for run in runs.running(session) if run.worker == runtime.name]
            for run in held:
                if run.heartbeat == 0:
                    with runtime.store.writing() as session:
                        runs.hand_back(session, run, "the database connection was lost during the claim", counts=False)
            return
        except LeaseLost:
            return
        except EpochalError:
            runtime.shutdown.wait(RETRY_SECONDS)


def _supervise(runtime: Runtime, lease: Lease) -> End:
    settings = runtime.settings
    job: TrainJob = {"do": "train", "settings": settings.model_dump(mode="json"), "claim": claim_to_json(lease.claim)}
    try:
        process = runtime.nursery.spawn(job, give_up=lambda: lease.lost or runtime.shutdown.is_set())
    except NurseryError as error:
        return End("hand_back", reason=str(error), counts=not runtime.shutdown.is_set())
    with process:
        return Supervisor(process, lease, runtime.shutdown, settings.stall_seconds).run()


def _write_end(runtime: Runtime, lease: Lease, end: End) -> None:
    experiment_id = lease.claim.experiment_id
    if end.action != "leave":
        _sweep(runtime, lease.claim)
    match end.action:
        case "settle":
            lease.settle(end.status, reason=end.reason, test=end.test)
        case "hand_back":
            if lease.hand_back(end.reason or "", counts=end.counts):
                _enqueue_again(runtime, experiment_id)
        case "leave":
            log.warning("left a run to another worker", experiment=experiment_id, attempt=lease.claim.attempt)


def _sweep(runtime: Runtime, claim: runs.Claim) -> None:
    """Remove half-written files. The process has ended and this worker still owns the run, so nothing writes there."""
    with suppress(EpochalError, OSError):
        with runtime.store.reading() as session:
            records = artifacts.list_for(session, claim.experiment_id)
        folders.sweep(runtime.settings.experiments_dir, claim.experiment_id, records, claim.attempt)


def _enqueue_again(runtime: Runtime, experiment_id: int) -> None:
    """Enqueue the experiment if it is queued and not ended; if that fails, a reaper does it later."""
    try:
        with runtime.store.reading() as session:
            queued = experiments.get(session, experiment_id).status is Status.QUEUED
        if queued:
            enqueue(runtime.celery, experiment_id)
            with runtime.store.writing() as session:
                experiments.mark_enqueued(session, experiment_id)
    except EpochalError as error:
        log.warning("an experiment cannot be enqueued yet", experiment=experiment_id, why=error.detail)
