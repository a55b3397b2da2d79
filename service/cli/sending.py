"""Uploads a file by the tus protocol: in pieces, with retries, resuming an interrupted upload."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from models.errors import EpochalError
from models.files import write
from service.cli.client import Client, NoAnswer, Problem

PIECE_BYTES = 8 << 20
MAX_TRIES = 8
"""Attempts to send one piece, with doubling pauses between them: four minutes in all."""
VERSION = {"Tus-Resumable": "1.0.0"}


class Content(Protocol):
    """The interface of content to upload."""

    length: int
    filename: str

    @property
    def digest(self) -> str:
        """A text that identifies the content, so that an upload is resumed with the same content only."""

    def read(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on."""


class FileContent:
    """The content of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.length = path.stat().st_size
        self.filename = path.name

    @property
    def digest(self) -> str:
        """A digest of path, size and modification time."""
        found = self._path.stat()
        return hashlib.sha256(f"{self._path.resolve()}\0{found.st_size}\0{found.st_mtime_ns}".encode()).hexdigest()

    def read(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on."""
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(size)


def send(client: Client, content: Content, notes: Path, progress: Callable[[int, int], None]) -> str:
    """Upload content; returns the upload's id.

    The address of an unfinished upload of the same content to the same lab is kept in the folder `notes`.
    """
    note = notes / f"{hashlib.sha256(f'{client.url} {content.digest}'.encode()).hexdigest()[:32]}.json"
    upload_id, offset = _begun(client, note, content) or (_begin(client, content), 0)
    write(note, json.dumps({"id": upload_id}).encode())
    progress(offset, content.length)
    while offset < content.length:
        offset = _send_piece(client, content, upload_id, offset)
        progress(offset, content.length)
    return upload_id


def forget(client: Client, content: Content, notes: Path) -> None:
    """Remove the note of an upload."""
    name = hashlib.sha256(f"{client.url} {content.digest}".encode()).hexdigest()[:32]
    (notes / f"{name}.json").unlink(missing_ok=True)


def _begun(client: Client, note: Path, content: Content) -> tuple[str, int] | None:
    """The address and offset of an unfinished upload of this content; None if the lab has none."""
    try:
        upload_id = str(json.loads(note.read_bytes())["id"])
        found = client.request("HEAD", f"/uploads/{upload_id}", headers=VERSION).headers
        if int(found["Upload-Length"]) != content.length:
            return None
        return upload_id, int(found["Upload-Offset"])
    except (OSError, ValueError, KeyError, TypeError, Problem):
        return None


def _begin(client: Client, content: Content) -> str:
    filename = base64.b64encode(content.filename.encode("utf-8", "replace")).decode()
    headers = {**VERSION, "Upload-Length": str(content.length), "Upload-Metadata": f"filename {filename}"}
    return str(client.request("POST", "/uploads", headers=headers).headers["Location"]).rpartition("/")[2]


def _send_piece(client: Client, content: Content, upload_id: str, offset: int) -> int:
    """Send the piece at an offset; returns the upload's new offset."""
    pause = 1.0
    for attempt in range(1, MAX_TRIES + 1):
        piece = content.read(offset, PIECE_BYTES)
        headers: dict[str, Any] = {
            **VERSION,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        try:
            answer = client.request("PATCH", f"/uploads/{upload_id}", headers=headers, content=piece)
            return int(answer.headers["Upload-Offset"])
        except EpochalError as error:
            if attempt == MAX_TRIES or not _may_pass(error):
                raise
            time.sleep(pause)
            pause *= 2
            offset = _offset(client, upload_id, offset)
    raise AssertionError("unreachable")


def _may_pass(error: EpochalError) -> bool:
    return isinstance(error, NoAnswer) or error.status in (408, 409, 429, 500, 502, 503, 504)


def _offset(client: Client, upload_id: str, otherwise: int) -> int:
    try:
        return int(client.request("HEAD", f"/uploads/{upload_id}", headers=VERSION).headers["Upload-Offset"])
    except NoAnswer:
        return otherwise
