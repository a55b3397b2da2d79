"""Imports files as a dataset: lists them, plans splits, decodes in parallel, and renames the result into place.

destination/                     appears by a rename
    train_images.npy  train_labels.npy  test_images.npy  test_labels.npy     as of every dataset
    dataset.json                 what it is, its fingerprint, policy and report
    files.jsonl                  where each image came from
    validation.npy  groups.npy   if the files give them
.NAME.importing/                 beside it during the import; an interrupted import continues from here
"""

from contextlib import suppress
from pathlib import Path

from models.cores import usable_cores
from models.data.fetching import is_whole, read_note
from models.data.importing.decoders import Decoders
from models.data.importing.finishing import finish
from models.data.importing.layouts.recognise import recognise
from models.data.importing.opening import UNPACKED, open_images
from models.data.importing.options import ImportOptions, ImportReport
from models.data.importing.plan import make_plan
from models.data.importing.reading import Reading
from models.data.importing.sizing import choose_size
from models.data.locking import file_lock
from models.errors import Conflict
from models.files import make_folder, remove_tree, storage_errors
from models.progress import ReportProgress

LARGE_BYTES = 4 << 20
"""Of an archive, for each of the decoders that are started while it is still listed: they take a fifth of a second."""


class _Watched:
    """Passes progress on, and records whether the callback stopped the import."""

    def __init__(self, progress: ReportProgress) -> None:
        self._progress = progress
        self.stopped = False

    def __call__(self, what: str, done: int, total: int) -> None:
        try:
            self._progress(what, done, total)
        except BaseException:
            self.stopped = True
            raise


def import_archive(source: Path, destination: Path, options: ImportOptions, progress: ReportProgress) -> ImportReport:
    """Import a zip, a tar (gzip, bzip2, xz), a folder or parquet files as a dataset in `destination`.

    `destination` is created by a rename at the end. An import that was interrupted, by the end of its process or by
    `progress`, continues when this is called again with the same arguments; for a finished one the report is returned
    again. Any error removes the unfinished files.

    Raises ArchiveError for files that cannot become a dataset, StorageFull if the disk is full, Conflict if
    `destination` holds something else.
    """
    make_folder(destination.parent)
    work, lock = (destination.parent / f".{destination.name}.{end}" for end in ("importing", "lock"))
    watched = _Watched(progress)
    with file_lock(lock, lambda: watched("waiting for another import into this folder", 0, 0)):
        if (report := finished(destination)) is not None:
            return report
        if destination.exists():
            raise Conflict(
                f"{destination} exists and is not a complete dataset", fix="remove it or choose another folder"
            )
        make_folder(work)
        try:
            with storage_errors(f"the dataset cannot be kept in {destination.parent}"):
                report = _import(source, work, options, watched)
                work.rename(destination)
        except Exception:
            if not watched.stopped:
                remove_tree(work)
            raise
        finally:
            with suppress(OSError):
                lock.unlink()
    return report


def finished(destination: Path) -> ImportReport | None:
    """The report of a whole imported dataset; None if there is none in this folder."""
    if not is_whole(destination):
        return None
    note = read_note(destination)
    return ImportReport.model_validate(note["report"]) if "report" in note else None


def _import(source: Path, work: Path, options: ImportOptions, progress: ReportProgress) -> ImportReport:
    progress("listing the files", 0, 0)
    ahead = source.stat().st_size // LARGE_BYTES if source.is_file() else 0
    with (
        Decoders(options.threads or usable_cores(), ahead=ahead) as decoders,
        open_images(source, work, options) as opened,
    ):
        layout = recognise(opened, options)
        plan = make_plan(layout, opened.listing.entries, options)
        if options.image_size is not None:
            size, reason = options.image_size, "as asked for"
        else:
            size, reason = choose_size(opened, [int(entry) for entry in plan.entries])
        reading = Reading(work, opened, plan, options, size)
        reading.run(decoders, progress)
    remove_tree(work / UNPACKED)
    return finish(work, source, opened.listing.entries, layout, plan, options, reading, reason, progress)
