"""Imports are made beside the queue by a real worker, gone on with by another, and stopped when they are deleted."""

import resource
from typing import Any

import pytest

from models.data.health.stored import HEALTH
from models.data.uploaded import list_versions
from models.store import datasets
from models.store.states import DatasetJobKind, DatasetStatus
from models.store.tables import DatasetVersion
from models.uploads import new_archive
from tests.processes import wait_until
from tests.service.datasets.photos import photos
from tests.worker.lab import Lab

pytestmark = pytest.mark.timeout(300)
MANY = {f"class {number}": 40 for number in range(12)}


def upload(lab: Lab, name: str, body: bytes, **options: Any) -> None:
    archive = new_archive(lab.settings.uploads_dir)
    archive.write_bytes(body)
    with lab.store.writing() as session:
        datasets.create_version(
            session,
            name,
            owner=None,
            options=options,
            job=DatasetJobKind.IMPORT,
            job_options={"archive": archive.name, "filename": "my photos.zip", "import": options},
        )


def ended(lab: Lab, name: str, seconds: float = 100.0) -> DatasetVersion:
    def found() -> DatasetVersion | None:
        with lab.store.reading() as session:
            version = datasets.get_version(session, name)
        return None if version.status is DatasetStatus.IMPORTING else version

    return wait_until(found, seconds, f"the import of {name}")


def begun(lab: Lab) -> bool:
    return any((lab.settings.datasets_dir / ".jobs").glob("*/.dataset.importing"))


def left(lab: Lab) -> list[str]:
    """Files of jobs, and archives."""
    settings = lab.settings
    return [
        str(path) for folder in (settings.datasets_dir / ".jobs", settings.uploads_dir) for path in folder.glob("*")
    ]


def test_an_import_whose_worker_was_killed_is_gone_on_with_by_another(lab: Lab) -> None:
    first = lab.worker()
    upload(lab, "many", photos(MANY, side=96))
    wait_until(lambda: begun(lab), 60.0, "the import to begin")
    first.kill()
    lab.start_worker()
    version = ended(lab, "many")
    assert version.status is DatasetStatus.READY, version.reason
    assert version.report is not None
    assert version.report["num_images"] == 480
    folder = list_versions(lab.settings.datasets_dir, "many")[0]
    assert version.num_bytes == sum(path.stat().st_size for path in folder.iterdir() if path.name != HEALTH)
    wait_until(lambda: not left(lab), 30.0, "the files of the job to go")


def test_a_deleted_import_is_stopped_and_leaves_nothing(lab: Lab) -> None:
    lab.worker()
    upload(lab, "gone", photos(MANY, first=5000, side=96))
    wait_until(lambda: begun(lab), 60.0, "the import to begin")
    with lab.store.writing() as session:
        datasets.delete(session, "gone")
    wait_until(lambda: not left(lab), 30.0, "the import to be stopped")
    assert not list_versions(lab.settings.datasets_dir, "gone")


def test_a_disk_that_is_full_fails_the_import_leaves_nothing_and_the_next_one_is_made(lab: Lab) -> None:
    worker = lab.worker()
    nursery = worker.family()[1]
    before = resource.prlimit(nursery, resource.RLIMIT_FSIZE)
    # The kernel refuses every process that is forked from now on any file beyond 100 kB, as a full disk would.
    resource.prlimit(nursery, resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        upload(lab, "large", photos(MANY, first=9000, side=48))
        version = ended(lab, "large")
    finally:
        resource.prlimit(nursery, resource.RLIMIT_FSIZE, before)
    assert version.status is DatasetStatus.FAILED
    assert "cannot be written" in version.reason["detail"]
    assert (version.reason["code"], version.reason["status"]) == ("storage-full", 507)
    wait_until(lambda: not left(lab), 30.0, "the files of the job to go")
    assert not list_versions(lab.settings.datasets_dir, "large")
    upload(lab, "large", photos(MANY, first=9000, side=48))
    assert ended(lab, "large").status is DatasetStatus.READY


def test_what_cannot_be_imported_says_why_with_the_name_it_was_sent_by(lab: Lab) -> None:
    lab.worker()
    upload(lab, "text", b"this is no archive")
    version = ended(lab, "text")
    assert version.status is DatasetStatus.FAILED
    assert version.reason["detail"].startswith("my photos.zip is neither")
    upload(lab, "strict", photos(also={"cat/bad.png": b"no picture"}), on_broken="refuse")
    assert "cat/bad.png" in ended(lab, "strict").reason["detail"]
    wait_until(lambda: not left(lab), 30.0, "the archives to go")
