"""Runs jobs of uploaded datasets: claims them in the database and runs each in a forked process.

Like measurements they do not go through the broker: an import must not queue behind a run that trains for hours. A job
writes its files to datasets/.jobs/ID; they are renamed into place in the transaction that makes the version ready. So a
version's folder is always complete, and the files of deleted or lost jobs are found by the job's id.
"""

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from models.data.description import DatasetProgress
from models.data.fetching import read_note
from models.data.health.report import HealthReport
from models.data.health.stored import StoredCheck, write_check
from models.data.uploaded import health_folder, version_folder
from models.errors import EpochalError
from models.files import flush, make_folder, remove_tree
from models.store import datasets
from models.store.states import DatasetJobKind
from worker.dataset_files import job_folder, remove_job_files
from worker.messages import DatasetJob, Report
from worker.processes.nursery import JobProcess, NurseryError
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
BEAT_SECONDS = 1.0


class DatasetWorker:
    """One worker's thread that polls the database for jobs of datasets.

    A worker has two: one makes versions and one checks them, so that an import does not wait for a check of minutes.
    """

    def __init__(self, runtime: Runtime, kinds: Collection[DatasetJobKind]) -> None:
        self._runtime = runtime
        self._kinds = kinds

    def run(self) -> None:
        """Run jobs, one at a time, until the worker shuts down."""
        while not self._runtime.shutdown.wait(POLL_SECONDS):
            try:
                while not self._runtime.shutdown.is_set() and (claim := self._claim()):
                    self._do(claim)
            except EpochalError as error:
                log.warning("the database cannot be searched for jobs of datasets now", why=str(error))

    def _claim(self) -> datasets.Claim | None:
        with self._runtime.store.reading() as session:
            if not datasets.any_waiting(session, self._kinds):
                return None
        with self._runtime.store.writing() as session:
            return datasets.claim_next(session, self._runtime.name, self._kinds)

    def _do(self, claim: datasets.Claim) -> None:
        began = time.monotonic()
        staging = job_folder(self._runtime.settings.datasets_dir, claim.job_id)
        try:
            answer = self._work(claim, staging)
        except NurseryError as error:
            log.error("a job of a dataset cannot be done", job=claim.job_id, why=str(error))
            answer = None
        if answer is None:
            self._leave(claim)
            return
        self._write(lambda: self._end(claim, staging, answer))
        self._clean_up(claim)
        log.info(
            "did a job of a dataset",
            job=claim.job_id,
            kind=claim.kind,
            dataset=f"{claim.dataset}/{claim.version}",
            seconds=round(time.monotonic() - began, 2),
            problem=answer["problem"]["detail"] if "problem" in answer else None,
        )

    def _work(self, claim: datasets.Claim, staging: Path) -> Report | None:
        """The process's last report; None if the worker shuts down, the process dies or the claim is lost."""
        make_folder(staging)
        payload: DatasetJob = {
            "do": "dataset",
            "kind": claim.kind.value,
            "dataset": claim.dataset,
            "version": claim.version,
            "options": claim.options,
            "staging": str(staging),
            "settings": self._runtime.settings.model_dump(mode="json"),
        }
        with self._runtime.nursery.spawn(payload, self._runtime.shutdown.is_set) as job:
            return self._watch(claim, job)

    def _watch(self, claim: datasets.Claim, job: JobProcess) -> Report | None:
        answer: Report | None = None
        progress: DatasetProgress | None = None
        beat_at = 0.0
        while job.exit_code is None:
            for report in job.read(0.2):
                if "dataset_progress" in report:
                    progress = report["dataset_progress"]
                else:
                    answer = report
            if self._runtime.shutdown.is_set():
                return answer
            if (now := time.monotonic()) > beat_at:
                beat_at = now + BEAT_SECONDS
                if not self._beat(claim, progress):
                    return None
        return answer

    def _beat(self, claim: datasets.Claim, progress: DatasetProgress | None) -> bool:
        """Renew the claim; False once it is lost. While the database is unavailable the job continues."""
        try:
            with self._runtime.store.writing() as session:
                return datasets.beat(session, claim, progress)
        except EpochalError as error:
            log.warning("a job of a dataset cannot be renewed now", job=claim.job_id, why=str(error))
            return True

    def _leave(self, claim: datasets.Claim) -> None:
        """Release an unfinished job. If it was deleted, remove its files."""
        with self._runtime.store.writing() as session:
            ours = datasets.give_back(session, claim.job_id, claim.attempt, counts=not self._runtime.shutdown.is_set())
            given_up = ours and claim.job_id not in datasets.job_ids(session)
        if given_up and claim.kind is DatasetJobKind.HEALTH:  # of an import, the version's row says it
            self._write_health(claim, StoredCheck(problem=datasets.given_up(claim.kind, self._runtime.name)))
        self._clean_up(claim)

    def _clean_up(self, claim: datasets.Claim) -> None:
        """Remove the job's files if it is finished or was deleted; otherwise another worker continues with them."""
        with self._runtime.store.reading() as session:
            if claim.job_id in datasets.job_ids(session):
                return
        remove_job_files(self._runtime.settings, claim)

    def _end(self, claim: datasets.Claim, staging: Path, answer: Report) -> None:
        """Store the result and move the files into place, in one transaction; nothing if the claim is lost."""
        place = version_folder(self._runtime.settings.datasets_dir, claim.dataset, claim.version)
        with self._runtime.store.writing() as session:
            if claim.kind is DatasetJobKind.HEALTH:
                if datasets.end_check(session, claim):
                    self._write_health(claim, _check_in(answer))
            elif "problem" in answer:
                datasets.fail(session, claim, answer["problem"])
            elif datasets.beat(session, claim):
                _put_in_place(staging / "dataset", place)
                note = read_note(place)
                version = datasets.finish(
                    session,
                    claim,
                    fingerprint=str(note["fingerprint"]),
                    num_bytes=sum(path.stat().st_size for path in place.iterdir()),
                    info=note["info"],
                    report=answer["dataset_report"],
                )
                if version is not None:
                    datasets.add_job(session, version, DatasetJobKind.HEALTH, {})

    def _write_health(self, claim: datasets.Claim, check: StoredCheck) -> None:
        folder = health_folder(self._runtime.settings.datasets_dir, claim.dataset, claim.version)
        make_folder(folder)
        write_check(folder, check)

    def _write(self, action: Callable[[], None]) -> None:
        """Run `action`, retrying while the database is unavailable; at a shutdown the next worker repeats the job."""
        while True:
            try:
                action()
            except EpochalError as error:
                log.warning("the end of a job of a dataset cannot be stored yet", why=str(error))
                if self._runtime.shutdown.wait(2.0):
                    raise
            else:
                return


def _check_in(answer: Report) -> StoredCheck:
    if "problem" in answer:
        return StoredCheck(problem=answer["problem"])
    return StoredCheck(report=HealthReport.from_json(answer["health_report"]))


def _put_in_place(made: Path, place: Path) -> None:
    """Rename a version's folder into place. An existing one is from an attempt whose commit failed."""
    make_folder(place.parent)
    if made.exists():
        remove_tree(place)
        os.rename(made, place)
        flush(place.parent)
