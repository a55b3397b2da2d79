"""Recovers what lost workers leave behind (expired leases, lost messages, unfinished measurements, orphaned files), and
brings studies forward.

Every worker has one; any of them may do any of it, since each step is a compare-and-set in the database. Silence is
counted in ticks of this process's own monotonic clock, each tick capped: no two clocks are compared, and a reaper that
was stopped itself, or waited for a locked database, does not count its own pause as silence of the others.
"""

import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from models import queue
from models.errors import EpochalError, LeaseLost, Unavailable
from models.files import remove_leftovers
from models.store import Status, datasets, experiments, measurements, runs, studies, study_progress, workers
from models.studies.search import load_optuna
from worker import folders
from worker.dataset_files import prune_datasets
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.5
LONGEST_TICK_SECONDS = 1.5

BEAT_SECONDS = 2.0
QUEUE_SECONDS = 1.0
MEASUREMENTS_SECONDS = 2.0
STUDIES_SECONDS = 1.0
UNSEEN_SECONDS = 0.75 * STUDIES_SECONDS
"""A study that another worker has looked at since then is left to it: a look at one of 25 rows takes 40 ms, which all
workers together would take from training once a second each."""
NURSERY_SECONDS = 10.0
PRUNE_SECONDS = 60.0

MEASUREMENT_SILENCE_SECONDS = 8.0
"""Measurements are renewed every second; after this long without a renewal the worker counts as lost."""

LONGEST_WAIT_SECONDS = 1.0
"""A reaper that waited longer than this to write assumes that the owners of runs had to wait as well."""

MISSING_LOOKS = 2
"""Consecutive checks in which a message must be missing: one that is just being sent or taken is not lost."""

ENQUEUE_AT_ONCE = 1000
ENQUEUE_TOGETHER = 50
"""Messages that one write to the database records; if the broker refuses one of them, all are sent again later."""

H = TypeVar("H", bound=Hashable)


class Silence:
    """Measures for each counter how long it has not changed."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[int, float]] = {}
        self._outage = False
        self._through_outage: set[Hashable] = set()

    def watch(self, counters: dict[H, int], elapsed: float) -> dict[H, float]:
        """Seconds of silence of each counter, after `elapsed` more of them. Counters no longer present are dropped."""
        silent: dict[H, float] = {}
        for key, value in counters.items():
            before, seconds = self._seen.get(key, (None, 0.0))
            silent[key] = seconds + elapsed if value == before else 0.0
            if before is not None and value != before:  # `reset` drops the earlier values
                self._through_outage.discard(key)
        if self._outage:  # one that has changed may have done so before the outage
            self._through_outage, self._outage = set(counters), False
        self._seen = {key: (value, silent[key]) for key, value in counters.items()}
        return silent

    def mark_outage(self) -> None:
        """Record that the database is unavailable. Counters seen next count as through an outage until they change."""
        self._outage = True

    def had_outage(self, key: Hashable) -> bool:
        """Whether this counter has not changed since the database was unavailable."""
        return key in self._through_outage

    def reset(self) -> None:
        """Reset the silence of all counters to 0."""
        self._seen.clear()


class PeriodicAction:
    """A periodic task: a function and its interval in seconds."""

    def __init__(self, seconds: float, do: Callable[[float], None]) -> None:
        self._seconds = seconds
        self._do = do
        self._failing = False
        self._last = time.monotonic()
        self._next = self._last

    def do_if_due(self) -> None:
        """Run the task if it is due. A failure is logged; the next interval tries again."""
        now = time.monotonic()
        if now < self._next:
            return
        elapsed = min(now - self._last, max(self._seconds, TICK_SECONDS) + LONGEST_TICK_SECONDS)
        self._last, self._next = now, now + self._seconds
        try:
            self._do(elapsed)
            self._failing = False
        except EpochalError as error:
            if not self._failing:
                log.warning("a periodic task cannot run yet", task=self._do.__name__, why=str(error))
            self._failing = True
        except Exception:
            log.exception("a periodic task failed", task=self._do.__name__)


class Reaper:
    """A worker's thread of periodic tasks: heartbeat, expired leases, lost messages, orphaned files."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self._leases, self._measurements, self._dataset_jobs = Silence(), Silence(), Silence()
        self._unsent: dict[int, int] = {}
        self._short_looks = 0
        self._refused = False
        self._lenient_from = 0.0
        self._missed_turn = False
        self._actions = [
            PeriodicAction(BEAT_SECONDS, self.beat),
            PeriodicAction(0.0, self.end_silent_runs),
            PeriodicAction(QUEUE_SECONDS, self.rebuild_queue),
            PeriodicAction(MEASUREMENTS_SECONDS, self.reclaim_measurements),
            PeriodicAction(STUDIES_SECONDS, self.advance_studies),
            PeriodicAction(MEASUREMENTS_SECONDS, self.reclaim_dataset_jobs),
            PeriodicAction(NURSERY_SECONDS, self.restart_nursery),
            PeriodicAction(PRUNE_SECONDS, self.prune),
        ]

    def run(self) -> None:
        """Run the periodic tasks until the worker shuts down."""
        while not self._runtime.shutdown.wait(TICK_SECONDS):
            for action in self._actions:
                action.do_if_due()

    @contextmanager
    def _writing(self) -> Iterator[tuple[Session, bool]]:
        """A writing session, and whether the database was locked until now, so that silence proves nothing.

        A wait that timed out counts as well: the next attempt may succeed at once, before any owner's. This is accepted
        once in two leases: where every write has to wait, a lost run must still be given back.
        """
        asked, missed = time.monotonic(), self._missed_turn
        self._missed_turn = True
        with self._store.writing() as session:
            self._missed_turn = False
            now = time.monotonic()
            locked = (missed or now - asked > LONGEST_WAIT_SECONDS) and now >= self._lenient_from
            if locked:
                self._lenient_from = now + 2 * self._runtime.settings.lease_seconds
                self._leases.reset()
            yield session, locked

    def beat(self, _: float) -> None:
        """Write this worker's heartbeat."""
        runtime = self._runtime
        with self._writing() as (session, _locked):
            workers.beat(session, runtime.name, host=runtime.host, pid=os.getpid(), device=runtime.device)

    def restart_nursery(self, _: float) -> None:
        """Start another nursery if the last one has ended."""
        self._runtime.nursery.start()

    def end_silent_runs(self, elapsed: float) -> None:
        """Give back the runs whose owners have been silent for longer than a lease."""
        try:
            with self._store.reading() as session:
                held = runs.running(session)
        except Unavailable:
            self._leases.mark_outage()
            raise
        silent = self._leases.watch({(run.run_id, run.attempt): run.heartbeat for run in held}, elapsed)
        for run in held:
            if silent[run.run_id, run.attempt] > self._runtime.settings.lease_seconds and not self._end(run):
                return

    def _end(self, run: runs.RunningRun) -> bool:
        """Give a run back if it has not been renewed since it was read. False if the database was locked meanwhile."""
        reason = f"worker {run.worker} did not renew its lease of {self._runtime.settings.lease_seconds:g} s in time"
        try:
            with self._writing() as (session, locked):
                if locked:
                    return False
                if run not in runs.running(session):
                    return True
                # A worker that ended while the database was unavailable could not hand its run back.
                outage = self._leases.had_outage((run.run_id, run.attempt))
                status = runs.hand_back(session, run, reason, counts=not outage)
        except LeaseLost:
            return True
        log.warning("lease ran out", experiment=run.experiment_id, attempt=run.attempt, worker=run.worker, now=status)
        remove_leftovers(self._runtime.settings.experiments_dir / str(run.experiment_id))
        if status is Status.QUEUED:
            self._enqueue([run.experiment_id])
        return True

    def rebuild_queue(self, _: float) -> None:
        """Enqueue experiments that are queued in the database and missing in the broker. Duplicates do no harm."""
        with self._store.reading() as session:
            queued = experiments.queued_ids(session)
            unsent = experiments.waiting(session)
        self._unsent = {each: self._unsent.get(each, 0) + 1 for each in unsent}
        overdue = {each for each, looks in self._unsent.items() if looks >= MISSING_LOOKS}
        length = queue.queue_length(self._runtime.celery) if queued else None
        self._short_looks = self._short_looks + 1 if length is not None and length < len(queued) else 0
        if self._short_looks >= MISSING_LOOKS:
            self._short_looks = 0
            there = queue.queued_messages(self._runtime.celery)
            lost = set(queued).difference(queued if there is None else there)
            log.warning("messages are missing from the queue", experiments=len(queued), messages=length, lost=len(lost))
            overdue |= lost
        self._enqueue(sorted(overdue)[:ENQUEUE_AT_ONCE])

    def reclaim_measurements(self, elapsed: float) -> None:
        """Give back measurements whose worker was lost; one that a request waited for fails: that has timed out."""
        with self._store.reading() as session:
            held = measurements.running(session)
        silent = self._measurements.watch(
            {measurement.measurement_id: measurement.heartbeat for measurement in held}, elapsed
        )
        for measurement_id, seconds in silent.items():
            if seconds > MEASUREMENT_SILENCE_SECONDS:
                with self._store.writing() as session:
                    found = measurements.get(session, measurement_id)
                    if found.kind.is_waited_for and not found.options.get("study"):
                        measurements.fail(session, measurement_id, "the worker that made it stopped responding")
                    else:
                        measurements.give_back(session, measurement_id)

    def advance_studies(self, _: float) -> None:
        """Do what is due for studies: plan within a budget, begin runs, add seeds, and end those that are done."""
        with self._store.reading() as session:
            due = studies.due_ids(session, UNSEEN_SECONDS)
            parallel = max(1, len(workers.live(session))) if due else 1
            searches = bool(due) and studies.is_search_active(session)
        if searches:
            load_optuna()
        for study_id in due:
            with self._store.writing() as session:
                created = study_progress.advance(
                    session, study_id, self._runtime.settings.experiments_dir, parallel=parallel
                )
            if created:
                log.info("a study's runs begin", study=study_id, experiments=created)
                self._enqueue(created)

    def reclaim_dataset_jobs(self, elapsed: float) -> None:
        """Give back imports and checks of datasets whose worker was lost; another goes on where it was."""
        with self._store.reading() as session:
            held = datasets.running(session)
        silent = self._dataset_jobs.watch({(job.job_id, job.attempt): job.heartbeat for job in held}, elapsed)
        for (job_id, attempt), seconds in silent.items():
            if seconds > MEASUREMENT_SILENCE_SECONDS:
                with self._store.writing() as session:
                    datasets.give_back(session, job_id, attempt, counts=True)

    def prune(self, _: float) -> None:
        """Remove the files of what was deleted while they could not be removed: experiments, datasets, uploads."""
        self._prune_experiments()
        prune_datasets(self._store, self._runtime.settings)

    def _prune_experiments(self) -> None:
        directory = self._runtime.settings.experiments_dir
        numbered = folders.numbered_folders(directory)
        with self._store.reading() as session:
            deleted = experiments.deleted_among(session, numbered)
        for number in sorted(deleted):
            log.info("removing the folder of a deleted experiment", experiment=number)
            folders.remove_folder(directory, number)

    def _enqueue(self, ids: Sequence[int]) -> None:
        for first in range(0, len(ids), ENQUEUE_TOGETHER):
            some = ids[first : first + ENQUEUE_TOGETHER]
            try:
                queue.enqueue(self._runtime.celery, *some)
            except Unavailable as error:
                if not self._refused:
                    log.warning("experiments cannot be enqueued yet", experiments=len(ids) - first, why=error.detail)
                self._refused = True
                return
            self._refused = False
            with self._store.writing() as session:
                experiments.mark_enqueued(session, *some)
            log.info("enqueued", experiments=some)
