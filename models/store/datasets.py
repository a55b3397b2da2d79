"""Uploaded datasets: names with versions, and the jobs that workers do for them outside the training queue.

A version is importing until a worker has made it, then ready or failed; a ready version never changes. Jobs are leased
like measurements: a worker claims one with an attempt number and renews a heartbeat, and a reaper returns a job without
heartbeats to the queue. Deleting a version deletes its job; the worker notices at its next heartbeat and stops.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.data.description import DatasetProgress, ImportChoices, ImportReportJson, InfoJson, JobOptions
from models.errors import Conflict, NotFound, ProblemJson
from models.plain import finite
from models.spec.data import DatasetSpec
from models.store.columns import now
from models.store.states import UNFINISHED, DatasetJobKind, DatasetStatus, StudyState
from models.store.tables import Dataset, DatasetJob, DatasetVersion, Experiment, Study, StudyRow

MAX_VERSIONS = 1000
"""The most versions of one name."""
BUILT_IN_VERSION = 0
"""The version of a built-in dataset's row, which is made when it is checked, so that a job can belong to it."""
ANY_KIND = frozenset(DatasetJobKind)
CHECKS = frozenset({DatasetJobKind.HEALTH})
MAX_ATTEMPTS = 3
"""The job fails when it has lost this many workers or processes."""


class Claim(NamedTuple):
    """A worker's claim on a job. Writes with it are refused once another worker has the job, or it was deleted."""

    job_id: int
    attempt: int
    dataset: str
    version: int
    kind: DatasetJobKind
    options: JobOptions
    owner: str | None


class RunningJob(NamedTuple):
    """A job leased by a worker; a reaper watches whether `heartbeat` moves."""

    job_id: int
    attempt: int
    heartbeat: int
    worker: str


def create_version(
    session: Session,
    name: str,
    *,
    owner: str | None,
    options: ImportChoices,
    job: DatasetJobKind,
    job_options: JobOptions,
    num_bytes: int = 0,
    made_of: int | None = None,
) -> DatasetVersion:
    """Create a name's next version, and the name if it is new, with the job that makes the version.

    The name is checked by `models.data.uploaded`. Raises Conflict while another version is being imported, and for a
    name that differs from an existing one only in capitals, since some file systems ignore case.
    """
    taken = session.scalar(select(Dataset.name).where(func.lower(Dataset.name) == name.lower(), Dataset.name != name))
    if taken is not None:
        raise Conflict(
            f"there is a dataset {taken} already, and names must differ in more than capitals",
            fix=f"PUT /api/v1/datasets/{taken} makes its next version; or take another name",
        )
    if session.get(Dataset, name) is None:
        session.add(Dataset(name=name))
        session.flush()
    versions = list_versions(session, name)
    check_not_importing(versions)
    if versions and versions[0].version >= MAX_VERSIONS:
        raise Conflict(
            f"dataset {name} has {MAX_VERSIONS:,} versions, as many as one may have", fix="take another name"
        )
    version = DatasetVersion(
        dataset=name,
        version=versions[0].version + 1 if versions else 1,
        status=DatasetStatus.IMPORTING,
        made_of=made_of,
        owner=owner,
        options=options,
        num_bytes=num_bytes,
    )
    session.add(version)
    session.flush()
    add_job(session, version, job, job_options)
    return version


def add_job(session: Session, version: DatasetVersion, kind: DatasetJobKind, options: JobOptions) -> DatasetJob:
    """Create a job for a version, which any worker may take."""
    job = DatasetJob(dataset=version.dataset, version=version.version, kind=kind, options=options)
    session.add(job)
    session.flush()
    return job


def request_check(session: Session, name: str, version: int) -> DatasetJob:
    """The job by which a worker checks a version's images: the one that waits or runs, or a new one."""
    job = find_job(session, name, version, DatasetJobKind.HEALTH)
    return job or add_job(session, get_version(session, name, version), DatasetJobKind.HEALTH, {})


def keep_built_in(session: Session, name: str) -> None:
    """Make the row of a built-in dataset, which only its check needs."""
    if session.get(Dataset, name) is None:
        session.add(Dataset(name=name))
        session.flush()
        session.add(DatasetVersion(dataset=name, version=BUILT_IN_VERSION, status=DatasetStatus.READY, options={}))
        session.flush()


def check_not_importing(versions: Sequence[DatasetVersion]) -> None:
    """Raise Conflict while one of a name's versions is being imported."""
    for found in versions:
        if found.status is DatasetStatus.IMPORTING:
            raise Conflict(
                f"version {found.version} of dataset {found.dataset} is being imported",
                fix=f"wait until it is ready, or DELETE /api/v1/datasets/{found.dataset}/versions/{found.version}",
            )


def get_version(session: Session, name: str, version: int | None = None) -> DatasetVersion:
    """A version; without a number the newest that is ready, or the newest if none is. Raises NotFound."""
    versions = list_versions(session, name)
    if not versions:
        raise NotFound(f"there is no uploaded dataset '{name[:100]}'", fix="GET /api/v1/datasets lists them")
    if version is None:
        return next((found for found in versions if found.status is DatasetStatus.READY), versions[0])
    for found in versions:
        if found.version == version:
            return found
    raise NotFound(f"dataset {name} has no version {version}", fix=f"GET /api/v1/datasets/{name} lists them")


def list_versions(session: Session, name: str) -> list[DatasetVersion]:
    """A name's versions, the newest first."""
    query = select(DatasetVersion).where(DatasetVersion.dataset == name).order_by(DatasetVersion.version.desc())
    return list(session.scalars(query.execution_options(populate_existing=True)))


def list_names(session: Session) -> list[str]:
    """The names of uploaded datasets, in the order of the alphabet."""
    has_version = select(DatasetVersion.dataset).where(
        DatasetVersion.dataset == Dataset.name, DatasetVersion.version != BUILT_IN_VERSION
    )
    return list(session.scalars(select(Dataset.name).where(has_version.exists()).order_by(Dataset.name)))


def list_ready(session: Session) -> list[tuple[str, int, str]]:
    """Name, version and fingerprint of every uploaded version that can be trained on."""
    query = select(DatasetVersion.dataset, DatasetVersion.version, DatasetVersion.fingerprint).where(
        DatasetVersion.status == DatasetStatus.READY, DatasetVersion.fingerprint.is_not(None)
    )
    found = session.execute(query.order_by(DatasetVersion.dataset, DatasetVersion.version))
    return [(name, version, fingerprint or "") for name, version, fingerprint in found]


def count_importing(session: Session, owner: str | None = None) -> int:
    """How many versions wait for a worker or are being made, of all owners or of one."""
    query = select(func.count()).where(DatasetVersion.status == DatasetStatus.IMPORTING)
    return session.scalar(query if owner is None else query.where(DatasetVersion.owner == owner)) or 0


def bytes_of_owner(session: Session, owner: str) -> int:
    """Bytes on the disk of an owner's versions, including archives that wait for their import."""
    return session.scalar(select(func.sum(DatasetVersion.num_bytes)).where(DatasetVersion.owner == owner)) or 0


def find_job(session: Session, name: str, version: int, kind: DatasetJobKind) -> DatasetJob | None:
    """A version's waiting or running job of this kind, if any."""
    query = select(DatasetJob).where(DatasetJob.dataset == name, DatasetJob.version == version, DatasetJob.kind == kind)
    return session.scalar(query.limit(1).execution_options(populate_existing=True))


def delete(session: Session, name: str, version: int | None = None) -> list[int]:
    """Delete a name with all its versions, or one version. Returns the versions; remove their files after the commit.

    Raises NotFound, and Conflict while an unfinished experiment or study uses one of them.
    """
    get_version(session, name, version)
    versions = [found for found in list_versions(session, name) if version in (None, found.version)]
    _check_unused(session, name, versions)
    for found in versions:
        session.delete(found)
    session.flush()
    if not list_versions(session, name):
        session.delete(session.get_one(Dataset, name))
    return [found.version for found in versions]


def check_there(session: Session, dataset: DatasetSpec) -> None:
    """Raise Conflict if the version of an uploaded dataset that a spec names was deleted since it was looked up."""
    if dataset.fingerprint is None:
        return
    query = select(DatasetVersion.version).where(
        DatasetVersion.dataset == dataset.name, DatasetVersion.fingerprint == dataset.fingerprint
    )
    if session.scalar(query.limit(1)) is None:
        raise Conflict(
            f"version {dataset.fingerprint[:12]} of dataset {dataset.name} was deleted", fix="upload its images again"
        )


def _check_unused(session: Session, name: str, versions: Sequence[DatasetVersion]) -> None:
    fingerprints = {found.fingerprint for found in versions if found.fingerprint is not None}
    query = select(Experiment.id, Experiment.spec).where(Experiment.dataset == name, Experiment.status.in_(UNFINISHED))
    users = [number for number, spec in session.execute(query) if spec["dataset"].get("fingerprint") in fingerprints]
    if users:
        named = ", ".join(str(number) for number in users[:10]) + (" ..." if len(users) > 10 else "")
        raise Conflict(
            f"dataset {name} is what {'experiment' if len(users) == 1 else 'experiments'} {named} will train on",
            fix="wait until they have ended, or cancel them",
            experiments=users[:50],
        )
    rows = select(StudyRow.study_id, StudyRow.spec).join(Study, Study.id == StudyRow.study_id)
    active = rows.where(Study.state.in_([state for state in StudyState if state.active]), StudyRow.reason.is_(None))
    studies = sorted(
        {
            number
            for number, spec in session.execute(active)
            if spec["dataset"]["name"] == name and spec["dataset"].get("fingerprint") in fingerprints
        }
    )
    if studies:
        named = ", ".join(map(str, studies[:10])) + (" ..." if len(studies) > 10 else "")
        raise Conflict(
            f"dataset {name} is what {'study' if len(studies) == 1 else 'studies'} {named} will train on",
            fix="wait until they have ended, or cancel them",
            studies=studies[:50],
        )


def any_waiting(session: Session, kinds: Collection[DatasetJobKind] = ANY_KIND) -> bool:
    """Whether a job of these kinds waits. Called often, so it takes no write lock."""
    waiting = select(DatasetJob.id).where(DatasetJob.claimed_by.is_(None), DatasetJob.kind.in_(kinds))
    return session.scalar(waiting.limit(1)) is not None


def claim_next(session: Session, worker: str, kinds: Collection[DatasetJobKind] = ANY_KIND) -> Claim | None:
    """Take the oldest job of these kinds that waits, imports before checks; None when none does."""
    waiting = select(DatasetJob).where(DatasetJob.claimed_by.is_(None), DatasetJob.kind.in_(kinds))
    is_check = DatasetJob.kind == DatasetJobKind.HEALTH
    job = session.scalar(waiting.order_by(is_check, DatasetJob.id).limit(1).execution_options(populate_existing=True))
    if job is None:
        return None
    job.claimed_by, job.attempts = worker, job.attempts + 1
    owner = session.get_one(DatasetVersion, (job.dataset, job.version)).owner
    return Claim(job.id, job.attempts, job.dataset, job.version, job.kind, job.options, owner)


def beat(session: Session, claim: Claim, progress: DatasetProgress | None = None) -> bool:
    """Renew the heartbeat and store the progress. False once another worker has the job, or it was deleted."""
    mine = (DatasetJob.id == claim.job_id, DatasetJob.attempts == claim.attempt, DatasetJob.claimed_by.is_not(None))
    job = session.scalar(select(DatasetJob).where(*mine).execution_options(populate_existing=True))
    if job is None:
        return False
    job.heartbeat += 1
    if progress is not None and claim.kind is DatasetJobKind.HEALTH:
        job.options = {**job.options, "progress": progress}
    elif progress is not None:
        _version_of(session, claim).progress = progress
    return True


def running(session: Session) -> list[RunningJob]:
    """List the jobs leased by workers."""
    query = select(DatasetJob.id, DatasetJob.attempts, DatasetJob.heartbeat, DatasetJob.claimed_by)
    found = session.execute(query.where(DatasetJob.claimed_by.is_not(None)))
    return [RunningJob(job_id, attempt, heartbeat, worker or "") for job_id, attempt, heartbeat, worker in found]


def give_back(session: Session, job_id: int, attempt: int, *, counts: bool) -> bool:
    """Release a job, so that another worker continues it. False, without effect, if that attempt no longer has it.

    `counts` is whether the attempt was lost (its worker or process died); a worker that shuts down does not count.
    A job that was lost MAX_ATTEMPTS times fails.
    """
    job = session.get(DatasetJob, job_id, populate_existing=True)
    if job is None or job.attempts != attempt or job.claimed_by is None:
        return False
    lost = int(job.options.get("lost", 0)) + counts
    if lost >= MAX_ATTEMPTS:
        _end(session, job, DatasetStatus.FAILED, reason=given_up(job.kind, job.claimed_by))
        return True
    job.options = {**job.options, "lost": lost}
    job.claimed_by = None
    return True


def given_up(kind: DatasetJobKind, worker: str) -> ProblemJson:
    """Why a job was not done whose process was lost too often, as in a problem document."""
    return {
        "title": f"The {'check' if kind is DatasetJobKind.HEALTH else 'import'} was given up",
        "detail": f"the process that did it was lost {MAX_ATTEMPTS} times, the last one on {worker}",
        "fix": "see the worker's log; often there is too little memory for it",
    }


def finish(
    session: Session,
    claim: Claim,
    *,
    fingerprint: str,
    num_bytes: int,
    info: InfoJson,
    report: ImportReportJson,
) -> DatasetVersion | None:
    """Make a version ready. None, with nothing stored, once another worker has the job or it was deleted."""
    if not beat(session, claim):
        return None
    job = session.get_one(DatasetJob, claim.job_id)
    return _end(
        session,
        job,
        DatasetStatus.READY,
        fingerprint=fingerprint,
        num_bytes=num_bytes,
        info=finite(info),
        report=finite(report),
    )


def fail(session: Session, claim: Claim, reason: ProblemJson) -> bool:
    """Store why a version could not be made, as in a problem document. False, with nothing stored, as for `finish`."""
    if not beat(session, claim):
        return False
    _end(session, session.get_one(DatasetJob, claim.job_id), DatasetStatus.FAILED, reason=finite(reason))
    return True


def end_check(session: Session, claim: Claim) -> bool:
    """Delete the job of a check; its result or failure is in a file. False, with nothing stored, as for `finish`."""
    if not beat(session, claim):
        return False
    session.delete(session.get_one(DatasetJob, claim.job_id))
    return True


def job_ids(session: Session) -> set[int]:
    """The ids of all jobs, whose folders must be kept."""
    return set(session.scalars(select(DatasetJob.id)))


def archives_waiting(session: Session) -> set[str]:
    """The names of the uploaded files that jobs will read."""
    return {str(options["archive"]) for options in session.scalars(select(DatasetJob.options)) if "archive" in options}


def unclaimed_archives(session: Session, name: str, version: int | None = None) -> list[str]:
    """The uploaded files that wait for an import of a name, or of one version. No worker has begun to read them."""
    query = select(DatasetJob.options).where(DatasetJob.dataset == name, DatasetJob.claimed_by.is_(None))
    if version is not None:
        query = query.where(DatasetJob.version == version)
    return [str(options["archive"]) for options in session.scalars(query) if "archive" in options]


def _end(session: Session, job: DatasetJob, status: DatasetStatus, **values: Any) -> DatasetVersion:
    version = session.get_one(DatasetVersion, (job.dataset, job.version), populate_existing=True)
    session.delete(job)
    if job.kind is DatasetJobKind.HEALTH:
        return version
    version.status, version.finished_at, version.progress = status, now(), None
    if status is DatasetStatus.FAILED:
        version.num_bytes = 0
    for name, value in values.items():
        setattr(version, name, value)
    return version


def _version_of(session: Session, claim: Claim) -> DatasetVersion:
    return session.get_one(DatasetVersion, (claim.dataset, claim.version))
