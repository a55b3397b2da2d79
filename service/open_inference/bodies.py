"""Reads the body of an inference request within the limits of uploads, decompressing it if needed."""

import zlib
from collections.abc import Callable

from anyio import to_thread
from starlette.requests import Request

from models.errors import TooLarge
from service.http.errors import BadRequest, shown

CODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content-Encoding to zlib's window bits."""


async def read_body(request: Request, arrived: Callable[[int], None], max_bytes: int) -> bytes:
    """Read the whole body. `arrived` is called with the number of bytes of each chunk.

    Raises BadRequest for a coding that is not known or broken data, TooLarge for more than `max_bytes` unpacked.
    """
    body = bytearray()
    async for chunk in request.stream():
        arrived(len(chunk))
        body += chunk
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return bytes(body)
    if coding not in CODINGS:
        raise BadRequest(f"the Content-Encoding is '{shown(coding)}'; gzip and deflate are read")
    unpacked = await to_thread.run_sync(_unpack, bytes(body), CODINGS[coding], max_bytes)
    arrived(len(unpacked))
    return unpacked


def _unpack(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadRequest(f"the compressed body cannot be unpacked: {error}") from None
    if len(unpacked) > max_bytes:
        raise TooLarge(f"unpacked, the body has more than {max_bytes:,} bytes", fix="send fewer images in a request")
    if not unpacker.eof:
        raise BadRequest("the compressed body is cut off")
    return unpacked
