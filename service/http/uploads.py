"""Reading images from bodies (multipart, raw, zip), with limits on number, names and size; decoding is in
service.predictions.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message as MailMessage
from email.utils import collapse_rfc2231_value
from functools import partial

from anyio import to_thread
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message

from models.errors import InvalidRequest, TooLarge, Unavailable, UnsupportedMedia
from service.http.archives import open_archive
from service.http.errors import BadRequest, shown
from service.http.forms import split_form

MAX_IMAGES = 256
MAX_FIELDS = 8
MAX_FIELD_BYTES = 64 * 1024
PARSED_AT_ONCE = 64 * 1024
"""Bytes parsed between two yields to the event loop. The slowest input tried takes 2 ms, a chunk of 256 kB 9 ms;
smaller pieces would wait for more iterations of a busy event loop."""
SPLIT_BYTES = 9_000_000
"""Forms up to this size are first tried by `split_form` (some milliseconds for the largest); larger ones are parsed as
they arrive, in little memory."""
PART = "image"
ZIP_TYPES = {"application/zip", "application/x-zip-compressed", "application/x-zip"}
EXAMPLE = "curl -F image=@cat.png -F image=@dog.jpg ADDRESS"


@dataclass(frozen=True, slots=True)
class Upload:
    """One uploaded image: its file name and bytes."""

    name: str
    data: bytes


class UploadMemory:
    """Limits the memory of uploads in progress, of all callers together and of each.

    Bytes received count, not Content-Length: a client that announces much and sends nothing takes nothing.
    """

    def __init__(self, max_bytes: int, max_share: int) -> None:
        self._max_bytes = max_bytes
        self._max_share = max_share
        self._held: Counter[str] = Counter()

    @contextmanager
    def upload(self, caller: str) -> Iterator[Callable[[int], None]]:
        """Give a function to call with the number of bytes received; it raises Unavailable above a limit.

        The bytes count until the context ends.
        """
        held = 0

        def arrived(num_bytes: int) -> None:
            nonlocal held
            own = self._held[caller] + num_bytes > self._max_share
            if own or self._held.total() + num_bytes > self._max_bytes:
                most = self._max_share if own else self._max_bytes
                raise Unavailable(
                    f"{'your ' if own else ''}uploads in progress have reached their limit of {most // 1_000_000} MB",
                    fix="wait for their answers, then send it again",
                    retry_after_seconds=1,
                )
            self._held[caller] += num_bytes
            held += num_bytes

        try:
            yield arrived
        finally:
            self._held[caller] -= held
            if self._held[caller] <= 0:
                del self._held[caller]


async def read_images(request: Request, arrived: Callable[[int], None], max_bytes: int) -> list[Upload]:
    """Read the images of a body, in order: the parts named `image` of a form, one raw image, or the files of a zip.

    `arrived` is called with the number of bytes of each chunk received, and with the unpacked size of a zip before it
    is unpacked, which is at most `max_bytes`. Raises InvalidRequest, UnsupportedMedia, TooLarge, BadRequest.
    """

    async def receive() -> Message:
        message = await request.receive()
        arrived(len(message.get("body", b"")))
        return message

    counted = Request(request.scope, receive)
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        length = request.headers.get("content-length", "")
        if length.isdigit() and len(length) < 8 and int(length) <= SPLIT_BYTES:
            body = await counted.body()
            if (files := split_form(content_type, body, MAX_IMAGES)) is not None:
                _check_names([name for name, _, _ in files])
                return [Upload(filename, data) for _, filename, data in files]
        return await _read_parts(counted)
    if kind in ZIP_TYPES:
        return await _read_zip(await counted.body(), arrived, max_bytes)
    if kind.startswith("image/"):
        return [Upload("image 1", await counted.body())]
    raise UnsupportedMedia(
        f"the content type is '{shown(kind)}'" if kind else "there is no Content-Type",
        fix=f"send images as multipart/form-data ({EXAMPLE}), one image as image/png, image/jpeg ..., or a zip of them "
        "as application/zip",
    )


async def _read_zip(body: bytes, arrived: Callable[[int], None], max_bytes: int) -> list[Upload]:
    archive = await to_thread.run_sync(partial(open_archive, body, max_members=MAX_IMAGES, max_bytes=max_bytes))
    arrived(archive.num_bytes)
    return [Upload(name, data) for name, data in await to_thread.run_sync(archive.unpack)]


async def _read_parts(request: Request) -> list[Upload]:
    try:
        form = await _read_form(request)
        try:
            parts = form.multi_items()
            _check_names([name for name, _ in parts])
            return [await _read(index, part) for index, (_, part) in enumerate(parts)]
        finally:
            await form.close()
    except MultiPartException as error:
        _refuse(error.message)
    except (KeyError, UnicodeDecodeError, ValueError) as error:
        _refuse(str(error))
    raise AssertionError("unreachable")


async def _read_form(request: Request) -> FormData:
    async with aclosing(request.stream()) as body, aclosing(_in_pieces(body)) as stream:
        parser = _Parser(
            request.headers, stream, max_files=MAX_IMAGES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        )
        form = await parser.parse()
    if not parser.has_ended:
        parser.close_files()
        raise BadRequest("the multipart body ends before its last boundary", fix="send it again")
    return form


async def _in_pieces(body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Split a stream's chunks into pieces of PARSED_AT_ONCE bytes, yielding to the event loop between them."""
    async for chunk in body:
        for start in range(0, len(chunk), PARSED_AT_ONCE):
            yield chunk[start : start + PARSED_AT_ONCE]
            await asyncio.sleep(0)


class _Parser(MultiPartParser):
    """Starlette's multipart parser, which also accepts a part with only a `filename*` (RFC 5987) as a file.

    RFC 7578 forbids that form, and older clients (urllib3 before version 2, some browsers) send it for names that are
    not ASCII. A header arrives in pieces: its value is buffered until it is complete.
    """

    _name = _value = b""
    has_ended = False
    """Whether the last boundary has been read. Without it the parser drops the part that was cut off."""

    def on_end(self) -> None:
        self.has_ended = True

    def close_files(self) -> None:
        """Close the files of all parts, the one that was cut off among them."""
        for file in self._files_to_close_on_error:
            file.close()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        super().on_header_field(data, start, end)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        value = self._value
        if self._name.lower() == b"content-disposition" and b"filename*" in value.lower():
            value = _with_plain_filename(value)
        super().on_header_value(value, 0, len(value))
        super().on_header_end()
        self._name = self._value = b""


def _with_plain_filename(disposition: bytes) -> bytes:
    header = MailMessage()
    header["content-disposition"] = disposition.decode("latin-1")
    given = [value for key, value in header.get_params([], "content-disposition") if key == "filename"]
    extended = [collapse_rfc2231_value(value) for value in given if isinstance(value, tuple)] or given
    filename = str((extended or [""])[0]).replace("\\", "\\\\").replace('"', '\\"')
    kind, options = parse_options_header(disposition)
    name = b'; name="%b"' % options[b"name"].replace(b'"', b'\\"') if b"name" in options else b""
    return b'%b%b; filename="%b"' % (kind, name, filename.encode("utf-8", "replace"))


def _check_names(names: list[str]) -> None:
    if PART not in names:
        raise InvalidRequest(
            f"there is no part named '{PART}'" + (f", only '{shown(names[0])}'" if names else ""), fix=EXAMPLE
        )
    if foreign := next((name for name in names if name != PART), None):
        raise InvalidRequest(f"there is a part named '{shown(foreign)}'; parts are named '{PART}'", fix=EXAMPLE)


async def _read(index: int, part: UploadFile | str) -> Upload:
    if isinstance(part, str):
        raise InvalidRequest(f"image {index + 1} is a text field, not a file", fix=EXAMPLE, index=index, image=None)
    name = part.filename or f"image {index + 1}"
    data = await part.read()
    with suppress(OSError):
        await part.close()
    return Upload(name, data)


def _refuse(detail: str) -> None:
    if "too many fields" in detail.lower():
        raise InvalidRequest(f"{detail} Send images as files, and no other fields", fix=EXAMPLE)
    if "too many files" in detail.lower() or "exceeded" in detail.lower():
        raise TooLarge(
            f"{detail} At most {MAX_IMAGES} images are accepted in a request.", fix="send fewer in one request"
        )
    raise BadRequest(f"the multipart body cannot be read: {detail}", fix=EXAMPLE)
