"""Submission of experiments: validated, stored, then enqueued."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from celery import Celery
from sqlalchemy.orm import Session

from models import queue
from models.curves.metrics import Summaries
from models.data.info import DatasetInfo
from models.data.uploaded import find_dataset
from models.errors import Conflict, DiskQuota, NotFound, SpecError, TooManyRequests, Unavailable
from models.networks.memory import disk_use_of
from models.settings import Settings
from models.spec.details import Details
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from models.store import Status, Store, artifacts, datasets, experiments, runs, studies
from models.store.artifacts import ArtifactRecord
from models.store.continuation import copy_epochs_and_files, last_checkpoint, link_initial_weights
from models.store.states import ArtifactKind
from models.store.tables import Experiment
from service.catalogue.accepted import Accepted
from service.experiments.continuation import Continuation, continued
from service.experiments.documents import ExperimentDocument, experiment_document
from service.http.access import Caller
from service.http.preconditions import ANYTHING, Precondition

logger = logging.getLogger(__name__)

NO_METRICS: Summaries = {"best": {}, "last": {}}


@dataclass(frozen=True, slots=True)
class Submissions:
    """Creates, resumes, cancels and deletes experiments; enqueues only after the commit."""

    settings: Settings
    store: Store
    celery: Celery

    def submit(
        self,
        accepted: Accepted,
        caller: Caller,
        key: str | None = None,
        body: bytes = b"",
        weights: ArtifactRecord | None = None,
    ) -> tuple[ExperimentDocument, bool]:
        """Store and enqueue an experiment, or find that of the Idempotency-Key. Returns it and whether it is new.

        `weights` are those that it starts from (see `find_start`).
        """

        def make() -> Experiment:
            self._check_quota(session, caller)
            self._check_room(session, caller)
            self._check_disk(session, caller, disk_use_of(accepted.spec, accepted.info, accepted.layers).files)
            datasets.check_there(session, accepted.spec.dataset)
            row = experiments.create(
                session, accepted.spec, layers=accepted.layers, warnings=accepted.warnings, owner=caller.name
            )
            if weights is not None:
                link_initial_weights(session, row, weights, self.settings.experiments_dir)
            return row

        with self.store.writing() as session:
            if key is None:
                row, created = make(), True
            else:
                digest = hashlib.sha256(body).hexdigest()
                row, created = experiments.create_once(session, key, digest, caller.name, make)
            document = describe(session, row)
        if created:
            self._enqueue(document.id, alone=key is None)
        return document, created

    def reproduce(self, experiment_id: int, caller: Caller) -> ExperimentDocument:
        """Store and enqueue the same spec again, as a reproduction of that experiment."""
        with self.store.writing() as session:
            self._check_quota(session, caller)
            self._check_room(session, caller)
            original = experiments.get(session, experiment_id)
            spec = load_spec(original.spec)
            needed = disk_use_of(spec, self._dataset_of(session, spec), original.layers or [])
            self._check_disk(session, caller, needed.files)
            row = experiments.create(
                session,
                spec,
                layers=original.layers,
                warnings=original.warnings,
                owner=caller.name,
                reproduces=original.id,
            )
            if (weights := artifacts.find(session, original.id, ArtifactKind.WEIGHTS_INITIAL)) is not None:
                link_initial_weights(session, row, weights, self.settings.experiments_dir)
            document = describe(session, row)
        self._enqueue(document.id, alone=True)
        return document

    def continue_with(
        self, experiment_id: int, asked: Continuation, caller: Caller, key: str | None = None, body: bytes = b""
    ) -> tuple[ExperimentDocument, bool]:
        """Store and enqueue an experiment that trains a completed one for more epochs, or find the key's."""

        def make() -> Experiment:
            self._check_quota(session, caller)
            self._check_room(session, caller)
            checkpoint = last_checkpoint(session, experiment_id)
            original = experiments.get(session, experiment_id)
            longer = continued(original, checkpoint.epoch, asked)
            needed = disk_use_of(longer.spec, self._dataset_of(session, longer.spec), original.layers or [])
            self._check_disk(session, caller, needed.files)
            row = experiments.create(
                session,
                longer.spec,
                layers=original.layers,
                warnings=longer.warnings,
                owner=caller.name,
                dataset_fingerprint=original.dataset_fingerprint,
            )
            copy_epochs_and_files(session, row, checkpoint, self.settings.experiments_dir)
            return row

        with self.store.writing() as session:
            if key is None:
                row, created = make(), True
            else:
                digest = hashlib.sha256(b"%d\0%b" % (experiment_id, body)).hexdigest()
                row, created = experiments.create_once(session, key, digest, caller.name, make)
            document = describe(session, row)
        if created:
            self._enqueue(document.id, alone=key is None)
        return document, created

    def resume(self, experiment_id: int, caller: Caller) -> ExperimentDocument:
        """Queue an experiment again that failed, diverged or was cancelled."""
        with self.store.writing() as session:
            self._check_quota(session, caller)
            row = experiments.request_resume(session, experiment_id)
            self._dataset_of(session, load_spec(row.spec))
            self._check_disk(session, caller, 0)  # it is among the unfinished ones now
            document = describe(session, row)
        self._enqueue(experiment_id, alone=False)
        return document

    def change(self, experiment_id: int, details: Details, when: Precondition = ANYTHING) -> ExperimentDocument:
        """Change an experiment's name, tags or notes. Raises PreconditionFailed."""
        with self.store.writing() as session:
            row = experiments.get(session, experiment_id)
            when.check(lambda: describe(session, row))
            return describe(session, experiments.describe(session, experiment_id, details))

    def cancel(self, experiment_id: int) -> ExperimentDocument:
        """Cancel a queued experiment, or request a running one's worker to stop."""
        with self.store.writing() as session:
            return describe(session, experiments.request_cancel(session, experiment_id))

    def delete(self, experiment_id: int, when: Precondition = ANYTHING) -> None:
        """Delete an experiment that is not running, then its files. Raises PreconditionFailed."""
        with self.store.writing() as session:
            row = experiments.get(session, experiment_id)
            when.check(lambda: describe(session, row))
            experiments.delete(session, experiment_id)
        try:
            artifacts.remove_folder(self.settings.experiments_dir, experiment_id)
        except OSError as error:  # the record is gone; workers remove folders without one
            logger.warning("the folder of experiment %d could not be removed yet: %s", experiment_id, error)

    def check_quotas(self, session: Session, caller: Caller, count: int, num_bytes: int) -> None:
        """Check that a key may have so many experiments more, with files of so many bytes. Raises as `submit` does."""
        self._check_quota(session, caller, count)
        self._check_room(session, caller, count)
        self._check_disk(session, caller, num_bytes)

    def enqueue(self, experiment_ids: Iterable[int]) -> None:
        """Enqueue stored experiments, recorded by one write; what the broker does not take, a worker enqueues later."""
        if ids := list(experiment_ids):
            self._send(*ids)

    def _check_quota(self, session: Session, caller: Caller, count: int = 1) -> None:
        if caller.name is None:
            return
        queued = experiments.count_queued(session, caller.name)
        if queued + count > self.settings.max_queued:
            wanted = f", and {count} more are asked for" if count > 1 else ""
            raise TooManyRequests(
                f"'{caller.name}' has {queued} experiments in the queue, of {self.settings.max_queued} allowed{wanted}",
                fix="wait for some to start, or cancel some",
                retry_after_seconds=30,
            )

    def _check_room(self, session: Session, caller: Caller, count: int = 1) -> None:
        if caller.name is None:
            return
        stored = experiments.count_stored(session, caller.name)
        if stored + count > self.settings.max_stored:
            raise TooManyRequests(
                f"'{caller.name}' has {stored} experiments, of {self.settings.max_stored} allowed",
                fix="delete some that are no longer needed, or have EPOCHAL_MAX_STORED raised",
            )

    def _check_disk(self, session: Session, caller: Caller, num_bytes: int) -> None:
        """Check a key's disk quota, counting what its queued experiments will need. Raises DiskQuota."""
        if caller.name is None:
            return
        session.flush()
        stored = artifacts.bytes_of_owner(session, caller.name)
        taken = dict(stored)
        for row in experiments.unfinished(session, caller.name):
            taken[row.id] = max(self._needs(session, row), stored.get(row.id, 0))
        images = datasets.bytes_of_owner(session, caller.name)
        if (total := sum(taken.values()) + images + num_bytes) <= self.settings.max_disk_mb * 1e6:
            return
        largest = sorted(stored, key=stored.__getitem__, reverse=True)[:5]
        which = ", ".join(f"{number} ({stored[number] / 1e6:,.1f} MB)" for number in largest)
        waiting = len(taken.keys() - stored.keys())
        way_out = "cancel some of those in the queue" if waiting else "train a smaller network"
        if largest:
            way_out = f"delete experiments that are no longer needed; the largest are {which}"
        of_images = f" and {images / 1e6:,.1f} MB of uploaded datasets" if images else ""
        raise DiskQuota(
            f"the experiments of '{caller.name}' would take {total / 1e6:,.1f} MB, of {self.settings.max_disk_mb:,} MB "
            f"allowed: {sum(stored.values()) / 1e6:,.1f} MB{of_images} are on the disk, this one needs "
            f"{num_bytes / 1e6:,.1f} MB, and {waiting} in the queue need space too",
            fix=f"{way_out}, or have EPOCHAL_MAX_DISK_MB raised",
        )

    def _needs(self, session: Session, row: Experiment) -> int:
        """The bytes that a queued or running experiment will take."""
        spec = load_spec(row.spec)
        try:
            return disk_use_of(spec, self._dataset_of(session, spec), row.layers or []).files
        except Conflict:  # its dataset's files were removed by hand: it will fail, and take nothing more
            return 0

    def _dataset_of(self, session: Session, spec: ExperimentSpec) -> DatasetInfo:
        """What a stored spec trains on. Raises Conflict if that was deleted since."""
        datasets.check_there(session, spec.dataset)
        try:
            return find_dataset(spec.dataset, self.settings).info
        except SpecError as error:
            raise Conflict(f"it cannot be trained again: {error.detail}", fix="upload its images again") from error

    def _enqueue(self, experiment_id: int, *, alone: bool) -> None:
        """Enqueue an experiment; if the broker does not take it, a worker enqueues it later from the database.

        If the broker is out of memory, which needs an operator, an experiment whose id no client has received yet
        (`alone`) is deleted again and refused.
        """
        error = self._send(experiment_id)
        if error is not None and alone and _broker_is_full(error) and self._take_back(experiment_id):
            raise Unavailable(
                "the broker is out of memory and takes no more experiments; this one was not kept",
                fix="give the broker memory, or wait until the queue is shorter, and send it again",
                retry_after_seconds=30,
            ) from error

    def _send(self, *experiment_ids: int) -> Unavailable | None:
        """Enqueue experiments and record it. Returns why the broker did not take one, if so."""
        try:
            queue.enqueue(self.celery, *experiment_ids)
        except Unavailable as error:
            logger.warning("%s", error.detail)
            return error
        with self.store.writing() as session:
            experiments.mark_enqueued(session, *experiment_ids)
        return None

    def _take_back(self, experiment_id: int) -> bool:
        with self.store.writing() as session:
            try:
                row = experiments.get(session, experiment_id)
                if row.status is not Status.QUEUED or row.attempt > 0:
                    return False
                experiments.delete(session, experiment_id)
            except (NotFound, Conflict):
                return False
        return True


def describe(session: Session, row: Experiment) -> ExperimentDocument:
    """Build the complete document of an experiment, with its metrics and runs."""
    session.flush()
    summaries = experiments.summaries(session, [row.id]).get(row.id, NO_METRICS)
    of_studies = studies.titles_with(session, row.id)
    return experiment_document(row, summaries, runs.list_for(session, row.id), of_studies)


def _broker_is_full(error: BaseException) -> bool:
    cause = error.__cause__
    while cause is not None:
        if "maxmemory" in str(cause):
            return True
        cause = cause.__cause__
    return False
