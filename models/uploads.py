"""Stores resumable uploads, and archives that wait for their import.

    data_dir/uploads/ID.json       an upload's length, owner, start time and metadata
                     ID.part       the bytes received so far; its size is the upload's offset
                     ID.archive    a complete archive, which a job of a dataset will read

The size of the file is the only record of an upload's offset, so that they cannot differ after a crash.
"""

import base64
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from models.errors import Conflict, InvalidRequest, NotFound, StorageFull
from models.files import FREE_SPACE, flush, make_folder, storage_errors, write

ID = re.compile(r"[0-9a-f]{32}")
KEPT_SECONDS = 7 * 24 * 3600.0
"""How long an unfinished upload is kept after its last byte."""
ARCHIVE_SECONDS = 3600.0
"""How long an archive is kept without a job. The job is stored right after the archive has arrived."""
SPARE_BYTES = 256 << 20
"""Bytes that must stay free on the disk, for the database and for running experiments."""


@dataclass(frozen=True)
class UploadNote:
    """An upload's length, owner, start time and metadata."""

    id: str
    length: int
    """Bytes of the whole file."""
    owner: str
    """Name of the API key that began it; empty where none is needed."""
    metadata: str
    """As the client sent it (the tus header Upload-Metadata)."""
    created_at: float
    concat: str = ""
    """The tus header Upload-Concat, of a part of an upload and of one that was made of parts."""

    @property
    def filename(self) -> str:
        """The file's name in the metadata; empty if it has none."""
        for pair in self.metadata.split(","):
            key, _, value = pair.strip().partition(" ")
            if key in ("filename", "name"):
                try:
                    return base64.b64decode(value, validate=True).decode("utf-8", "replace")
                except ValueError:
                    return ""
        return ""


def create_upload(folder: Path, length: int, owner: str, metadata: str, concat: str = "") -> UploadNote:
    """Create an upload. Raises StorageFull if the disk has too little space."""
    make_folder(folder)
    check_room(folder, length)
    note = UploadNote(secrets.token_hex(16), length, owner, metadata, time.time(), concat)
    with storage_errors("the upload cannot be stored"):
        (folder / f"{note.id}.part").touch(mode=0o600)
        write(folder / f"{note.id}.json", json.dumps(asdict(note)).encode(), mode=0o600)
    return note


def find_upload(folder: Path, upload_id: str, owner: str) -> UploadNote:
    """An upload that this owner began. Raises NotFound for any other."""
    if ID.fullmatch(upload_id):
        try:
            note = UploadNote(**json.loads((folder / f"{upload_id}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            pass
        else:
            if note.owner == owner and not _is_over(folder, upload_id, time.time()):
                return note
    raise NotFound("there is no such upload (any more)", fix="begin it again: POST /api/v1/uploads")


def offset_of(folder: Path, note: UploadNote) -> int:
    """How many bytes of an upload have arrived."""
    try:
        return (folder / f"{note.id}.part").stat().st_size
    except FileNotFoundError as error:
        raise NotFound("the upload was used or removed", fix="begin it again: POST /api/v1/uploads") from error


def expires_at(folder: Path, note: UploadNote) -> float:
    """When an upload is removed unless more of it arrives, in seconds since 1970."""
    return _last_change(folder, note.id) + KEPT_SECONDS


@contextmanager
def appending(folder: Path, note: UploadNote, offset: int) -> Iterator[IO[bytes]]:
    """The upload's file, open for writing at `offset`, which must be its size.

    Raises Conflict for another offset, and while another request writes to it.
    """
    try:
        file = (folder / f"{note.id}.part").open("r+b", buffering=0)
    except FileNotFoundError as error:
        raise NotFound("the upload was used or removed", fix="begin it again: POST /api/v1/uploads") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            busy = "another request is writing to this upload"
            raise Conflict(busy, fix="wait for its end, then ask for the offset") from error
        there = file.seek(0, os.SEEK_END)
        if there != offset:
            raise Conflict(
                f"the upload has {there:,} bytes, and Upload-Offset is {offset:,}",
                fix="HEAD it, and continue from there",
            )
        yield file


def remove_upload(folder: Path, note: UploadNote) -> None:
    """Remove an upload and the bytes received."""
    for ending in ("json", "part"):
        (folder / f"{note.id}.{ending}").unlink(missing_ok=True)


def take_archive(folder: Path, note: UploadNote) -> str:
    """Turn a complete upload into the archive of a job; returns the archive's name.

    Raises Conflict for an incomplete upload, InvalidRequest for an empty one. Of two concurrent requests one takes it,
    the other gets NotFound.
    """
    if (there := offset_of(folder, note)) != note.length:
        raise Conflict(
            f"the upload has {there:,} bytes of {note.length:,}", fix="send the rest, then name it here again"
        )
    if not note.length:
        raise InvalidRequest("the upload is empty", fix="begin another one, of the archive's length")
    name = f"{note.id}.archive"
    try:
        os.utime(folder / f"{note.id}.part")  # the age of an archive is counted from here
        (folder / f"{note.id}.part").rename(folder / name)
    except FileNotFoundError as error:
        raise NotFound("the upload was used already", fix="GET /api/v1/datasets shows what became of it") from error
    (folder / f"{note.id}.json").unlink(missing_ok=True)
    flush(folder)
    return name


def give_back_archive(folder: Path, note: UploadNote, archive: str) -> None:
    """Turn an archive back into an upload, because its dataset was refused (for its name, for example)."""
    (folder / archive).rename(folder / f"{note.id}.part")
    write(folder / f"{note.id}.json", json.dumps(asdict(note)).encode(), mode=0o600)


def new_archive(folder: Path) -> Path:
    """The path of a new archive that a request's body is written to."""
    make_folder(folder)
    return folder / f"{secrets.token_hex(16)}.archive"


def list_uploads(folder: Path) -> list[UploadNote]:
    """Every upload that has not been used."""
    found = []
    for path in _files(folder, "json"):
        try:
            found.append(UploadNote(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return found


def check_room(folder: Path, num_bytes: int) -> None:
    """Raise StorageFull if the disk has too little space for this many more bytes."""
    free = shutil.disk_usage(folder).free
    if num_bytes + SPARE_BYTES > free:
        raise StorageFull(
            f"the upload has {num_bytes:,} bytes, and {max(0, free - SPARE_BYTES):,} are free for it", fix=FREE_SPACE
        )


def prune_uploads(folder: Path, archives_in_use: Iterable[str]) -> int:
    """Remove abandoned uploads, and old archives without a job. Returns the number of files removed."""
    moment, kept = time.time(), set(archives_in_use)
    gone = 0
    for ending in ("json", "part", "archive"):
        for path in _files(folder, ending):
            seconds = ARCHIVE_SECONDS if ending == "archive" else KEPT_SECONDS
            if path.name not in kept and _is_over(folder, path.stem, moment, seconds):
                path.unlink(missing_ok=True)
                gone += 1
    return gone


def _files(folder: Path, ending: str) -> list[Path]:
    return [path for path in folder.glob(f"*.{ending}") if ID.fullmatch(path.stem)]


def _is_over(folder: Path, upload_id: str, moment: float, seconds: float = KEPT_SECONDS) -> bool:
    last = _last_change(folder, upload_id)
    return abs(moment - last) > seconds


def _last_change(folder: Path, upload_id: str) -> float:
    times = []
    for ending in ("part", "json", "archive"):
        try:
            times.append((folder / f"{upload_id}.{ending}").stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
