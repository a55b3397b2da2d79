"""The engine's sink that writes results to the store, fenced by the claim, and sends progress to the supervisor."""

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from models.curves.metrics import EpochMetrics
from models.environment import Environment
from models.errors import Unavailable
from models.files import sha256_of
from models.notices import NoticeCode, NoticeData
from models.progress import RunProgress
from models.store import Store, artifacts, history, runs
from models.store.states import ArtifactKind
from models.verdict import Verdict
from worker.folders import keep, remove_files
from worker.messages import Report

RETRY_SECONDS = 0.5
"""Between two attempts while the database is unavailable. Each attempt itself waits for a locked one."""

KEPT_CHECKPOINTS = 2
"""The newest one, and the one before it in case the newest is damaged."""

FETCH_REPORT_SECONDS = 0.5

T = TypeVar("T")

log = structlog.get_logger(__name__)


class StoreSink:
    """The MetricSink of a real run. Every write is refused with LeaseLost once another worker owns the run."""

    def __init__(
        self,
        store: Store,
        claim: runs.Claim,
        experiments_dir: Path,
        report: Callable[[Report], None],
        should_stop: Callable[[], object] = lambda: False,
    ) -> None:
        self._store = store
        self._claim = claim
        self._experiments_dir = experiments_dir
        self._report = report
        self._should_stop = should_stop
        self._began = False
        self._pace = Pace(claim.spec.epochs)
        self._fetch_reported_at = 0.0

    def append_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        """Commit one epoch. The first call deletes what earlier attempts stored of it and of later epochs."""

        def action(session: Session) -> None:
            if not self._began:
                history.rewind(session, self._claim, metrics.epoch - 1)
            history.append_epoch(session, self._claim, metrics, class_accuracy)

        self._write(action)
        self._began = True
        self._pace.epoch_ended(metrics)

    def progress(self, epoch: int, step: int, num_steps: int, images_per_second: float | None, phase: str) -> None:
        """Report progress to the supervisor, which stores it with its next renewal. Never waits."""
        left = self._pace.seconds_left(epoch, step, num_steps, phase)
        self._tell(epoch, phase, step=step, steps=num_steps, seconds_left=left, images_per_second=images_per_second)

    def fetching(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Report how far the download of a dataset is, at most twice a second."""
        now = time.monotonic()
        if now - self._fetch_reported_at >= FETCH_REPORT_SECONDS:
            self._fetch_reported_at = now
            size = f": {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB" if total_bytes else ""
            self._tell(self._claim.start_epoch, f"{label}{size}")

    def save(self, kind: str, epoch: int, path: Path) -> None:
        """Record a file with its digest, then remove the stored files that it replaces."""
        digest, num_bytes = sha256_of(path), path.stat().st_size
        relative = keep(path, digest).relative_to(self._experiments_dir).as_posix()

        def action(session: Session) -> list[artifacts.ArtifactRecord]:
            artifact = ArtifactKind(kind)
            replaced = artifacts.record(session, self._claim, artifact, epoch, relative, digest, num_bytes)
            gone = [] if replaced is None else [replaced]
            if artifact is ArtifactKind.CHECKPOINT:
                gone += artifacts.forget(session, self._claim, artifact, keep=KEPT_CHECKPOINTS)
            return gone

        remove_files(self._experiments_dir, self._write(action))

    def retain(self, kind: str, epochs: Collection[int]) -> None:
        """Drop the records of a kind that are of other epochs, then their files."""
        gone = self._write(lambda session: artifacts.retain(session, self._claim, ArtifactKind(kind), epochs))
        remove_files(self._experiments_dir, gone)

    def notice(self, code: NoticeCode, text: str, data: NoticeData) -> None:
        """Store a notice for the experiment's event stream."""
        self._write(lambda session: runs.notice(session, self._claim, code, text, data))

    def verdict(self, verdict: Verdict) -> None:
        """Store the latest verdict."""
        self._write(lambda session: runs.set_verdict(session, self._claim, verdict.as_json()))

    def environment(self, environment: Environment) -> None:
        """Store the run's environment."""
        self._write(lambda session: runs.set_environment(session, self._claim, environment))

    def _tell(
        self,
        epoch: int,
        phase: str,
        *,
        step: int = 0,
        steps: int | None = None,
        seconds_left: float | None = None,
        images_per_second: float | None = None,
    ) -> None:
        progress: RunProgress = {
            "epoch": epoch,
            "epochs": self._claim.spec.epochs,
            "step": step,
            "steps": steps,
            "seconds_left": seconds_left,
            "images_per_second": images_per_second,
            "phase": phase,
        }
        self._report({"progress": progress})

    def read(self, action: Callable[[Session], T]) -> T:
        """Read from the store, retrying while the database is unavailable, as writes do."""
        return self._persist(self._store.reading, action)

    def _write(self, action: Callable[[Session], T]) -> T:
        return self._persist(self._store.writing, action)

    def _persist(self, transaction: Callable[[], AbstractContextManager[Session]], action: Callable[[Session], T]) -> T:
        """Run an action in a transaction, retrying while the database is unavailable, without a limit.

        An action may have been committed by an attempt whose answer was lost, so every action must be idempotent.
        Raises Unavailable when a cancel or shutdown is requested meanwhile.
        """
        waiting = False
        while True:
            try:
                with transaction() as session:
                    return action(session)
            except Unavailable as error:
                if self._should_stop():
                    raise
                if not waiting:
                    log.warning("training waits for the database", experiment=self._claim.experiment_id, why=str(error))
                waiting = True
                self._report({"waiting": error.detail})  # the run waits, it is not stalled
                time.sleep(RETRY_SECONDS)


class Pace:
    """Estimates the remaining seconds from the epochs and steps done."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._epoch: int | None = None
        self._epoch_began = 0.0
        self._first_step = 0
        self._last_seconds: float | None = None

    def epoch_ended(self, metrics: EpochMetrics) -> None:
        """Use this epoch's duration to estimate those to come."""
        self._last_seconds = metrics.seconds
        self._epoch = None

    def seconds_left(self, epoch: int, step: int, num_steps: int, phase: str) -> float | None:
        """Seconds until training ends, None while there is no estimate."""
        now = time.monotonic()
        if epoch != self._epoch:
            self._epoch, self._epoch_began, self._first_step = epoch, now, step
        elapsed = now - self._epoch_began
        whole = self._last_seconds
        if whole is None:
            steps = step - self._first_step
            if phase != "training" or steps <= 0 or num_steps <= 0:
                return None
            whole = elapsed * num_steps / steps
        return max(0.0, whole - elapsed) + whole * max(0, self._epochs - epoch)
