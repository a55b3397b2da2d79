"""The tus resumable upload protocol 1.0.0: its headers, and writing a request's body to an upload.

Core, creation, creation-with-upload, expiration, termination and concatenation: https://tus.io/protocols/resumable-upload
docs/decisions/tus.md says why it is written here.
"""

import base64
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from email.utils import formatdate
from pathlib import Path
from typing import IO, Any

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from models import uploads
from models.errors import EpochalError, FieldError, Forbidden, InvalidRequest, TooLarge, UnsupportedMedia
from models.joined_uploads import FINAL
from models.uploads import UploadNote
from service.http.errors import problem_response
from service.http.routing import StrictRoute

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,termination,concatenation"
BODY_TYPE = "application/offset+octet-stream"
WRITTEN_AT_ONCE = 1 << 20
"""Bytes that are buffered before a thread writes them."""
MAX_METADATA = 4096
NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


class WrongVersion(EpochalError):
    """A request of another version of the tus protocol, or without the header Tus-Resumable."""

    code = "wrong-tus-version"
    status = 412
    title = "Another version of the upload protocol"


class TusRoute(StrictRoute):
    """A route whose errors have the headers that the protocol wants in every answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def with_headers(request: Request) -> Response:
            try:
                return await handle(request)
            except EpochalError as error:
                supported = {"Tus-Version": VERSION} if isinstance(error, WrongVersion) else {}
                return problem_response(error, {"Tus-Resumable": VERSION, **supported})

        return with_headers


def check_version(request: Request) -> None:
    """Raise WrongVersion unless the request has the header of this version."""
    given = request.headers.get("tus-resumable")
    if given != VERSION:
        raise WrongVersion(
            f"Tus-Resumable is {given[:20]!r}" if given else "there is no header Tus-Resumable",
            fix=f"send Tus-Resumable: {VERSION}, or use a tus client",
            versions=[VERSION],
        )


def length_in(request: Request) -> int:
    """The length of a new upload. Raises InvalidRequest where it is missing."""
    if "upload-defer-length" in request.headers:
        message = "cannot be sent later; send Upload-Length with the creation: disk space is reserved for the whole"
        entry: FieldError = {"field": "Upload-Defer-Length", "message": f"the length {message}"}
        raise InvalidRequest(f"the length of an upload {message}", errors=[entry])
    return number_in(request, "Upload-Length")


def number_in(request: Request, header: str) -> int:
    """The number in a header. Raises InvalidRequest if the header is missing or not a number."""
    given = request.headers.get(header, "")
    if not NUMBER.fullmatch(given):
        entry = {"field": header, "message": f"must be a whole number of bytes, not {given[:30]!r}"}
        raise InvalidRequest(f"{header} must be a whole number of bytes, not {given[:30]!r}", errors=[entry])
    return int(given)


def metadata_in(request: Request) -> str:
    """The header Upload-Metadata: keys, each with its value in base64. Raises InvalidRequest for another form."""
    given = request.headers.get("upload-metadata", "")
    if len(given) > MAX_METADATA:
        raise InvalidRequest(f"Upload-Metadata has {len(given):,} characters, of {MAX_METADATA:,} allowed")
    for pair in given.split(",") if given else ():
        key, _, value = pair.strip().partition(" ")
        try:
            well = bool(key) and key.isascii() and key.isprintable()
            base64.b64decode(value, validate=True)
        except ValueError:
            well = False
        if not well:
            raise InvalidRequest(
                f"Upload-Metadata has {pair.strip()[:60]!r}, which is not a key with a value in base64",
                errors=[{"field": "Upload-Metadata", "message": "must be keys with values in base64"}],
            )
    return given


def state(folder: Path, note: UploadNote, offset: int, status_code: int = 204) -> Response:
    """An answer with an upload's offset in its headers."""
    headers = {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(offset),
        "Upload-Expires": formatdate(uploads.expires_at(folder, note), usegmt=True),
        "Cache-Control": "no-store",
    }
    if note.concat:
        headers["Upload-Concat"] = note.concat
    return Response(status_code=status_code, headers=headers)


async def append_body(request: Request, folder: Path, note: UploadNote, offset: int) -> int:
    """Write a request's body to an upload from `offset` on; returns the new offset.

    If the connection breaks, the bytes received are kept. Raises Conflict if `offset` is not the upload's, Forbidden
    for an upload that was made of parts, TooLarge for more than its length, UnsupportedMedia for another type.
    """
    if note.concat.startswith(FINAL):
        raise Forbidden("the upload was made of others and is complete", fix="POST /api/v1/datasets?upload= uses it")
    if (kind := request.headers.get("content-type", "")) != BODY_TYPE:
        raise UnsupportedMedia(f"the Content-Type is '{kind[:60]}'", fix=f"send Content-Type: {BODY_TYPE}")
    with uploads.appending(folder, note, offset) as file:
        room = note.length - offset
        async for piece in gathered(request.stream()):
            if len(piece) > room:
                raise TooLarge(
                    f"the body goes beyond the {note.length:,} bytes that the upload was announced with",
                    fix="send the rest of the file and no more, or begin a new upload",
                )
            await to_thread.run_sync(_write_all, file, piece)
            room -= len(piece)
        await to_thread.run_sync(os.fsync, file.fileno())
    return note.length - room


async def gathered(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a body in larger pieces, also the last bytes before a broken connection."""
    held = bytearray()
    try:
        async for chunk in stream:
            held += chunk
            if len(held) >= WRITTEN_AT_ONCE:
                yield bytes(held)
                held.clear()
    except ClientDisconnect:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
