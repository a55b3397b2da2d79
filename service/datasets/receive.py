"""Receives an archive of images: a request's body is streamed to the disk."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO

from anyio import to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from models.errors import InvalidRequest, TooLarge, UnsupportedMedia
from models.uploads import check_room, new_archive
from service.http.errors import BadRequest, shown

ARCHIVE_TYPES = (
    *("application/zip", "application/x-zip-compressed", "application/x-zip", "application/x-tar", "application/tar"),
    *("application/gzip", "application/x-gzip", "application/x-gtar", "application/x-compressed-tar"),
    *("application/x-bzip2", "application/x-xz", "application/octet-stream", "application/vnd.apache.parquet"),
)
FILE = "file"
MAX_FIELDS = 16
MAX_FIELD_BYTES = 1000
MAX_HEAD_BYTES = 8000
"""The most bytes of the headers of one part."""
WRITTEN_AT_ONCE = 1 << 20
ROOM_BYTES = 64 << 20
"""The free disk space is checked after every this many bytes of a body of unknown length."""
EXAMPLE = "curl --data-binary @photos.zip -H 'Content-Type: application/zip' 'ADDRESS/api/v1/datasets?name=photos'"


@dataclass
class Received:
    """A received archive: its path, size and file name, and the form's text fields."""

    archive: Path
    num_bytes: int = 0
    filename: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    """Text fields of a form."""


async def receive_archive(request: Request, folder: Path, max_bytes: int) -> Received:
    """Write the archive in a body, raw or as the part `file` of a form, to a new file in `folder`.

    Raises UnsupportedMedia, BadRequest, InvalidRequest, TooLarge above `max_bytes`, StorageFull; then no file is left.
    """
    kind = request.headers.get("content-type", "")
    plain = kind.partition(";")[0].strip().lower()
    length = request.headers.get("content-length", "0")
    received = Received(new_archive(folder))
    check_room(folder, min(int(length), max_bytes) if length.isdigit() and len(length) < 19 else 0)
    form = _Form(kind, received) if plain == "multipart/form-data" else None
    if form is None and plain not in ARCHIVE_TYPES:
        raise UnsupportedMedia(
            f"the content type is '{shown(plain)}'" if plain else "there is no Content-Type",
            fix=f"send a zip, tar or tar.gz: {EXAMPLE}; or a form with a part named '{FILE}'",
        )
    try:
        with open(received.archive, "xb", opener=_private) as file:
            await _write(request.stream(), form, file, received, max_bytes)
            await to_thread.run_sync(_flush, file)
        if form is not None:
            form.close()
        if not received.num_bytes:
            raise InvalidRequest("the archive is empty", fix=EXAMPLE)
    except BaseException:
        received.archive.unlink(missing_ok=True)
        raise
    return received


async def _write(
    stream: AsyncIterator[bytes], form: "_Form | None", file: IO[bytes], received: Received, max_bytes: int
) -> None:
    held, looked = bytearray(), 0
    async for chunk in stream:
        piece = chunk if form is None else form.feed(chunk)
        held += piece
        received.num_bytes += len(piece)
        if received.num_bytes > max_bytes:
            raise TooLarge(
                f"the archive has more than {max_bytes:,} bytes, the most that may be sent",
                fix="upload a part of it, delete what is no longer needed, or have EPOCHAL_MAX_DATASET_MB and "
                "EPOCHAL_MAX_DISK_MB raised",
            )
        if received.num_bytes - looked > ROOM_BYTES:
            looked = received.num_bytes
            check_room(received.archive.parent, ROOM_BYTES)
        if len(held) >= WRITTEN_AT_ONCE:
            await to_thread.run_sync(file.write, bytes(held))
            held.clear()
    if held:
        await to_thread.run_sync(file.write, bytes(held))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


class _Form:
    """An incremental parser of a multipart form: it keeps text fields and returns the file's bytes."""

    def __init__(self, content_type: str, received: Received) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= 256:
            raise BadRequest("the form's Content-Type names no boundary", fix=EXAMPLE)
        self._received = received
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._head_bytes = 0
        self._name, self._is_file, self._value = "", False, bytearray()
        self._file_bytes = bytearray()
        self._seen: set[str] = set()
        self._ended = False
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._gather(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._gather(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]

    def feed(self, chunk: bytes) -> bytes:
        """Parse a piece of the body; returns the file's bytes in it."""
        self._file_bytes.clear()
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise BadRequest(f"the multipart body cannot be read: {error}", fix=EXAMPLE) from error
        return bytes(self._file_bytes)

    def close(self) -> None:
        """Check that the form was complete and had a file."""
        if not self._ended:
            raise BadRequest("the multipart body ends before its last boundary", fix="send it again")
        if FILE not in self._seen:
            raise InvalidRequest(f"the form has no part named '{FILE}'", fix=EXAMPLE)

    def _begin(self) -> None:
        self._name, self._is_file, self._head_bytes = "", False, 0
        self._value.clear()

    def _gather(self, part: int, data: bytes) -> None:
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise BadRequest(f"a part of the form has headers of more than {MAX_HEAD_BYTES:,} bytes")
        self._header[part].extend(data)

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        for part in self._header:
            part.clear()
        if name.lower() == b"content-disposition":
            header = Message()
            header["content-disposition"] = value.decode("utf-8", "replace")
            self._name = str(header.get_param("name", "", "content-disposition"))
            filename = header.get_filename()
            self._is_file = filename is not None
            if filename and self._name == FILE:
                self._received.filename = filename

    def _end_headers(self) -> None:
        if self._name in self._seen or len(self._seen) >= MAX_FIELDS:
            raise InvalidRequest(f"the form has the part '{shown(self._name)}' twice, or more than {MAX_FIELDS} parts")
        if self._is_file != (self._name == FILE):
            raise InvalidRequest(
                f"the form's part '{shown(self._name)}' is {'a' if self._is_file else 'no'} file; the file is the part "
                f"named '{FILE}'",
                fix=EXAMPLE,
            )
        self._seen.add(self._name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file_bytes += data[start:end]
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise InvalidRequest(f"the form's field '{shown(self._name)}' has more than {MAX_FIELD_BYTES:,} bytes")

    def _end_part(self) -> None:
        if not self._is_file:
            self._received.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True
