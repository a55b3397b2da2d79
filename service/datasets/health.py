"""Reads the check of a dataset's images, which a worker makes once a version is ready and stores beside its arrays."""

from models.data.catalogue import DATASETS
from models.data.health.stored import read_check
from models.data.uploaded import version_folder
from models.errors import Conflict
from models.settings import Settings
from models.store import Store
from models.store import datasets as rows
from models.store.states import DatasetJobKind, DatasetStatus
from service.datasets.datasets import Datasets
from service.datasets.documents import HealthDocument, HealthReportDocument, links_of


def read_health(store: Store, settings: Settings, datasets: Datasets, name: str, version: int | None) -> HealthDocument:
    """The result of a version's check, or that it is being made. A version without a check gets one now.

    Raises NotFound, Conflict for a version that is not ready and for a built-in dataset.
    """
    if name in DATASETS:
        raise Conflict(f"{name} is built in; only uploaded datasets are checked", fix="make bench-data measures it")
    with store.reading() as session:
        row = datasets.find(session, name, version)
        waits = rows.find_job(session, name, row.version, DatasetJobKind.HEALTH) is not None
    if row.status is not DatasetStatus.READY:
        raise Conflict(f"version {row.version} of dataset {name} is {row.status}, so there is nothing to check")
    check = read_check(version_folder(settings.datasets_dir, name, row.version))
    if check is None and not waits:
        with store.writing() as session:
            row = datasets.find(session, name, row.version)
            if rows.find_job(session, name, row.version, DatasetJobKind.HEALTH) is None:
                rows.add_job(session, row, DatasetJobKind.HEALTH, {})
    report = None if check is None else check.report
    problem = None if check is None else check.problem
    return HealthDocument(
        name=name,
        version=row.version,
        status="checking" if check is None else "failed" if problem else "ready",
        reason=None if problem is None else {**problem},
        report=None if report is None else HealthReportDocument.model_validate(report, from_attributes=True),
        links=links_of(name, row.version),
    )
