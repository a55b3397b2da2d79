"""Joins uploads whose parts were sent side by side into one (the tus extension concatenation)."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from models.errors import Conflict, InvalidRequest, NotFound, TooLarge
from models.files import flush, storage_errors, write
from models.uploads import UploadNote, create_upload, find_upload, offset_of, remove_upload

PARTIAL, FINAL = "partial", "final;"
"""Values of the header Upload-Concat: a part, and the upload that is made of the parts whose addresses follow."""
MOST_PARTS = 100
ADDRESS = re.compile(r"(?:.*/)?uploads/([^/?#]+)")
COPIED_AT_ONCE = 1 << 20


def find_parts(folder: Path, concat: str, owner: str) -> list[UploadNote]:
    """The uploads that a final one is made of, in order, by the header's value.

    Raises InvalidRequest for another form, NotFound for an upload that is not there, Conflict for one that is no part
    or has not arrived.
    """
    addresses = concat.removeprefix(FINAL).split()
    found = [ADDRESS.fullmatch(address) for address in addresses]
    ids = [match[1] for match in found if match is not None]
    if not 0 < len(ids) == len(addresses) <= MOST_PARTS or len(set(ids)) < len(ids):
        message = f"must be partial, or final; and the addresses of 1 to {MOST_PARTS} different partial uploads"
        raise InvalidRequest(
            f"Upload-Concat {message}, not '{concat[:100]}'", errors=[{"field": "Upload-Concat", "message": message}]
        )
    parts = [find_upload(folder, one, owner) for one in ids]
    for note in parts:
        if note.concat != PARTIAL:
            raise Conflict(f"the upload {note.id} is not a partial upload", fix="begin it with Upload-Concat: partial")
        if (there := offset_of(folder, note)) != note.length:
            raise Conflict(f"the upload {note.id} has {there:,} bytes of {note.length:,}", fix="send the rest first")
    return parts


def join_uploads(
    folder: Path, parts: Sequence[UploadNote], owner: str, metadata: str, concat: str, max_bytes: int
) -> UploadNote:
    """Make one upload of the bytes of several, which are removed afterwards.

    Raises StorageFull, TooLarge, and NotFound if another request has used a part meanwhile.
    """
    length = sum(note.length for note in parts)
    if length > max_bytes:
        raise TooLarge(f"the parts have {length:,} bytes together; at most {max_bytes:,} are taken")
    note = replace(create_upload(folder, length, owner, metadata), concat=concat)
    try:
        with storage_errors("the upload cannot be stored"):
            joined = folder / f"{note.id}.part"
            with joined.open("wb") as target:
                for part in parts:
                    with (folder / f"{part.id}.part").open("rb") as source:
                        shutil.copyfileobj(source, target, COPIED_AT_ONCE)
            flush(joined)
            write(folder / f"{note.id}.json", json.dumps(asdict(note)).encode(), mode=0o600)
    except FileNotFoundError as error:
        remove_upload(folder, note)
        raise NotFound("a part was used by another request", fix="HEAD the upload that it made") from error
    except BaseException:
        remove_upload(folder, note)
        raise
    for part in parts:
        remove_upload(folder, part)
    return note
