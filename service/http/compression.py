"""gzip compression of JSON, CSV, SVG, pages, scripts and styles; not of PNG or event streams.

An answer that sets a cookie stays plain: a login form repeats what is in its address beside a secret token, and the
length of both compressed would give the token away (BREACH, 2013).
"""

import gzip

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.headers import header_of
from service.http.negotiation import accepts_gzip

MIN_BYTES = 1000
"""Smaller bodies fit into one packet anyway."""
INLINE_BYTES = 20_000
"""Bodies up to this size take less than a third of a millisecond: not worth a thread."""
LEVEL = 5
GZIPPED = '-gzip"'
"""How a strong ETag ends on a compressed answer, whose bytes are others. Weak ones (W/) stand for both."""
TYPES = {"application/json", "application/problem+json", "application/javascript", "image/svg+xml"}


def compress(data: bytes) -> bytes:
    """Compress with gzip, deterministically (no time in the header)."""
    return gzip.compress(data, LEVEL, mtime=0)


def is_compressible(media_type: str) -> bool:
    """Whether bodies of a media type are worth compressing."""
    kind = media_type.partition(";")[0].strip().lower()
    return kind in TYPES or (kind.startswith("text/") and kind != "text/event-stream")


def add_vary(headers: MutableHeaders, name: str) -> None:
    """Add a request header's name to Vary."""
    named = [part.strip() for part in headers.get("vary", "").split(",") if part.strip()]
    if name.lower() not in (part.lower() for part in named):
        headers["vary"] = ", ".join([*named, name])


def plain_tag(tag: str) -> str:
    """The ETag of the uncompressed answer, of either form's."""
    return f'{tag.removesuffix(GZIPPED)}"' if tag.endswith(GZIPPED) else tag


class Compression:
    """ASGI middleware that compresses answers sent in one piece. Caching is outside of it, so caches hold gzip."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = accepts_gzip(header_of(scope, b"accept-encoding"))
        held: Message | None = None
        """Head of a compressible answer, delayed until the size of its body is known."""

        async def pass_on(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and _may_be_compressed(message):
                held = {**message, "headers": list(message["headers"])}
                return
            if held is not None:
                head, held = held, None
                message = await _compressed(head, message, wanted)
                await send(head)
            await send(message)

        await self.app(scope, receive, pass_on)


def _may_be_compressed(head: Message) -> bool:
    headers = Headers(raw=head["headers"])
    plain = "content-encoding" not in headers and "set-cookie" not in headers
    return plain and is_compressible(headers.get("content-type", ""))


async def _compressed(head: Message, message: Message, wanted: bool) -> Message:
    """Compress a body's first part if it is the only one and large enough, and update the head's headers."""
    body = message.get("body", b"")
    if len(body) < MIN_BYTES or message.get("more_body", False):
        return message
    headers = MutableHeaders(raw=head["headers"])
    add_vary(headers, "Accept-Encoding")
    if not wanted:
        return message
    body = compress(body) if len(body) < INLINE_BYTES else await run_in_threadpool(compress, body)
    headers["content-encoding"] = "gzip"
    headers["content-length"] = str(len(body))
    if (tag := headers.get("etag", "")).startswith('"'):
        headers["etag"] = tag[:-1] + GZIPPED
    return {**message, "body": body}
