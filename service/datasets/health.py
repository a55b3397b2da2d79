"""Reads the check of a dataset's images, which a worker makes and stores beside an uploaded version's arrays."""

from models.data.catalogue import DATASETS
from models.data.description import JobOptions
from models.data.health.stored import StoredCheck, read_check
from models.data.uploaded import health_folder
from models.errors import Conflict, NotFound
from models.settings import Settings
from models.store import Store
from models.store import datasets as rows
from models.store.states import DatasetJobKind, DatasetStatus
from service.datasets.datasets import Datasets
from service.datasets.documents import DatasetProgressDocument, HealthDocument, HealthReportDocument, links_of


def read_health(
    store: Store, settings: Settings, datasets: Datasets, name: str, version: int | None, *, ask: bool = True
) -> HealthDocument | None:
    """The result of a dataset's last check, and whether the next one is being made.

    A dataset without a check gets one now, unless `ask` is false; then the answer is None. Raises NotFound, Conflict
    for a version that is not ready.
    """
    number = _number(store, datasets, name, version)
    check = read_check(health_folder(settings.datasets_dir, name, number))
    with store.reading() as session:
        job = rows.find_job(session, name, number, DatasetJobKind.HEALTH)
        options = None if job is None else job.options
    if check is None and options is None:
        return check_again(store, settings, datasets, name, version) if ask else None
    return _document(name, number, check, options)


def check_again(store: Store, settings: Settings, datasets: Datasets, name: str, version: int | None) -> HealthDocument:
    """Have a worker check a dataset, once more if it was checked. Raises as `read_health` does."""
    number = _number(store, datasets, name, version)
    with store.writing() as session:
        if name in DATASETS:
            rows.keep_built_in(session, name)
        options = rows.request_check(session, name, number).options
    return _document(name, number, read_check(health_folder(settings.datasets_dir, name, number)), options)


def _number(store: Store, datasets: Datasets, name: str, version: int | None) -> int:
    """The version that is meant, which is ready."""
    if name in DATASETS:
        if version is not None:
            raise NotFound(f"{name} is built in and has no versions", fix=f"GET /api/v1/datasets/{name}/health")
        return rows.BUILT_IN_VERSION
    with store.reading() as session:
        row = datasets.find(session, name, version)
    if row.status is not DatasetStatus.READY:
        raise Conflict(f"version {row.version} of dataset {name} is {row.status}, so there is nothing to check")
    return row.version


def _document(name: str, version: int, check: StoredCheck | None, job: JobOptions | None) -> HealthDocument:
    """`job` are the options of the job that waits or runs."""
    number = None if name in DATASETS else version
    report = None if check is None else check.report
    problem = None if check is None else check.problem
    progress = None if job is None else job.get("progress")
    return HealthDocument(
        name=name,
        version=number,
        status="checking" if job is not None else "failed" if problem else "ready",
        progress=None if progress is None else DatasetProgressDocument(**progress),
        reason=None if problem is None else {**problem},
        report=None if report is None else HealthReportDocument.model_validate(report, from_attributes=True),
        links=links_of(name, number),
    )
