"""Removes files of datasets that no row of the database needs any more.

datasets_dir/.jobs/<id>/        where a job makes its files
             .deleted-*/        a deleted version, moved out of its place before it is removed
"""

from pathlib import Path

import structlog

from models.data.uploaded import DELETED, JOBS
from models.files import remove_tree
from models.settings import Settings
from models.store import Store, datasets
from models.uploads import prune_uploads

log = structlog.get_logger(__name__)


def job_folder(datasets_dir: Path, job_id: int) -> Path:
    """The folder in which a job's files are made."""
    return datasets_dir / JOBS / str(int(job_id))


def remove_job_files(settings: Settings, claim: datasets.Claim) -> None:
    """Remove what is left of a job that is done, and the archive that it read."""
    remove_tree(job_folder(settings.datasets_dir, claim.job_id))
    if archive := claim.options.get("archive"):
        (settings.uploads_dir / str(archive)).unlink(missing_ok=True)


def prune_datasets(store: Store, settings: Settings) -> None:
    """Remove the files of deleted jobs and versions, and abandoned uploads."""
    made = [path for path in (settings.datasets_dir / JOBS).glob("*") if path.name.isdecimal()]  # before the rows
    with store.reading() as session:
        jobs, archives = datasets.job_ids(session), datasets.archives_waiting(session)
    for folder in [*(path for path in made if int(path.name) not in jobs), *settings.datasets_dir.glob(f"{DELETED}*")]:
        log.info("removing the files of a dataset that was deleted or not made", folder=folder.name)
        remove_tree(folder)
    prune_uploads(settings.uploads_dir, archives)
