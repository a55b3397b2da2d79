"""CORS: browser access to the API for the origins in EPOCHAL_ALLOWED_ORIGINS (none by default).

Such a page sends a key in a header; the session cookie of this lab's own pages is ignored for it.
https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.addresses import normal_origin
from service.http.compression import add_vary
from service.http.documents import API, INFERENCE
from service.http.origins import NAMED_ORIGIN, is_own_origin

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = (
    "Authorization, X-API-Key, Content-Type, Content-Encoding, Idempotency-Key, If-Match, If-None-Match, "
    "Last-Event-ID, Inference-Header-Content-Length, Tus-Resumable, Upload-Length, Upload-Offset, Upload-Metadata, "
    "Upload-Concat, X-HTTP-Method-Override"
)
EXPOSED_HEADERS = (
    "Location, ETag, Retry-After, Idempotent-Replayed, Allow, WWW-Authenticate, Content-Disposition, "
    "Inference-Header-Content-Length, "
    "Tus-Resumable, Tus-Version, Tus-Max-Size, Tus-Extension, Upload-Offset, Upload-Length, Upload-Metadata, "
    "Upload-Expires, Upload-Concat"
)
REMEMBER_SECONDS = 600
FOR_PROGRAMS = ("/healthz", "/readyz", "/metrics", "/openapi.json", INFERENCE)
"""Paths beside the API itself; pages and login are for this lab's own origin."""


class Cors:
    """ASGI middleware outside everything that answers, so that errors carry CORS headers too."""

    def __init__(self, app: ASGIApp, *, allowed_origins: Iterable[str]) -> None:
        self.app = app
        self.allowed = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.allowed or not _is_for_programs(scope["path"]):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        named = self._names(origin)
        if named and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await send({"type": "http.response.start", "status": 204, "headers": _preflight(origin)})
            await send({"type": "http.response.body", "body": b""})
            return
        if named and not is_own_origin(origin, headers.get("host", "")):
            plain = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
            scope = {**scope, "headers": plain, NAMED_ORIGIN: True}

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": list(message["headers"])}
                answer = MutableHeaders(raw=message["headers"])
                add_vary(answer, "Origin")
                if named:
                    answer["access-control-allow-origin"] = origin
                    answer["access-control-expose-headers"] = EXPOSED_HEADERS
            await send(message)

        await self.app(scope, receive, pass_on)

    def _names(self, origin: str) -> bool:
        try:
            return bool(origin) and normal_origin(origin) in self.allowed
        except ValueError:  # such as "null", which pages without an origin send
            return False


def _is_for_programs(path: str) -> bool:
    return path.startswith((f"{API}/", f"{INFERENCE}/")) or path in FOR_PROGRAMS


def _preflight(origin: str) -> list[tuple[bytes, bytes]]:
    headers = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": REQUEST_HEADERS,
        "access-control-max-age": str(REMEMBER_SECONDS),
        "vary": "Origin",
    }
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
