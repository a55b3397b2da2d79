"""Disk quotas of API keys: experiments' files, datasets and uploads together."""

from sqlalchemy.orm import Session

from models.errors import DiskQuota, TooLarge, TooManyRequests
from models.settings import Settings
from models.store import artifacts, datasets
from models.uploads import UploadNote, list_uploads
from service.http.access import Caller

MAX_UPLOADS = 20
"""Unfinished uploads of one key, and of all callers where none is needed."""


def check_upload_size(settings: Settings, num_bytes: int) -> None:
    """Raise TooLarge for an archive above the lab's limit."""
    if num_bytes > settings.max_dataset_mb * 1_000_000:
        raise TooLarge(
            f"the upload has {num_bytes:,} bytes; the limit is {settings.max_dataset_mb * 1_000_000:,}",
            fix="upload a part of it, or have EPOCHAL_MAX_DATASET_MB raised",
        )


def check_num_uploads(settings: Settings, caller: Caller) -> None:
    """Raise TooManyRequests if the caller has too many unused uploads."""
    own = _uploads_of(settings, caller)
    if len(own) >= MAX_UPLOADS:
        raise TooManyRequests(
            f"{len(own)} uploads have been begun and not been used, of {MAX_UPLOADS} allowed",
            fix="continue one, or DELETE some; one without new bytes for a week is removed",
        )


def check_disk_quota(session: Session, settings: Settings, caller: Caller, num_bytes: int) -> None:
    """Raise DiskQuota if this many more bytes exceed the caller's quota."""
    if caller.name is None:
        return
    kept = {
        "experiments": sum(artifacts.bytes_of_owner(session, caller.name).values()),
        "datasets": datasets.bytes_of_owner(session, caller.name),
        "uploads": sum(note.length for note in _uploads_of(settings, caller)),
    }
    if sum(kept.values()) + num_bytes > settings.max_disk_mb * 1e6:
        parts = ", ".join(f"{taken / 1e6:,.1f} MB of {what}" for what, taken in kept.items())
        raise DiskQuota(
            f"'{caller.name}' may keep {settings.max_disk_mb:,} MB and has {parts}; {num_bytes / 1e6:,.1f} MB more do "
            "not fit",
            fix="delete datasets and experiments that are no longer needed, or have EPOCHAL_MAX_DISK_MB raised",
        )


def _uploads_of(settings: Settings, caller: Caller) -> list[UploadNote]:
    return [note for note in list_uploads(settings.uploads_dir) if note.owner == (caller.name or "")]
