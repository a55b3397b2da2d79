"""Rendered pictures and tables: ETags, conditional requests, and an LRU cache of the rendered bytes."""

import hashlib
import threading
from collections.abc import Callable, Mapping

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import Response

from service.http.compression import MIN_BYTES, add_vary, compress, is_compressible, plain_tag
from service.http.negotiation import accepts_gzip

MAX_BYTES = 4_000_000
VERSION = "5"
"""Part of every ETag; to be raised when pictures of the same data look different."""


class Renderings:
    """LRU cache of renderings by ETag. One is rendered at a time, so that none is rendered twice."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._cached: LRUCache[str, bytes] = LRUCache(max_bytes, getsizeof=len)
        self._lock = threading.Lock()
        self._making = threading.Lock()

    def respond(
        self,
        request: Request,
        key: tuple[object, ...],
        media_type: str,
        make: Callable[[], bytes],
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Respond with the rendering identified by `key`: 304 if If-None-Match has its ETag, else cached or new."""
        tag = etag(media_type, *key)
        all_headers = {"ETag": tag, "Cache-Control": "private, no-cache", **(headers or {})}
        if is_known(request, tag):
            response = Response(status_code=304, headers=all_headers)
        else:
            response = Response(self._get(tag, make), headers=all_headers, media_type=media_type)
        if is_compressible(media_type):
            add_vary(response.headers, "Accept-Encoding")
            self._compress(request, response, tag)
        return response

    def _compress(self, request: Request, response: Response, tag: str) -> None:
        body = bytes(response.body)
        if len(body) >= MIN_BYTES and accepts_gzip(request.headers.get("accept-encoding")):
            response.body = self._get(f"{tag} gzip", lambda: compress(body))
            response.headers["content-encoding"] = "gzip"
            response.headers["content-length"] = str(len(response.body))

    def _get(self, tag: str, make: Callable[[], bytes]) -> bytes:
        if (found := self._find(tag)) is not None:
            return found
        with self._making:
            if (found := self._find(tag)) is None:
                found = make()
                with self._lock:
                    if len(found) <= self._cached.maxsize:
                        self._cached[tag] = found
            return found

    def _find(self, tag: str) -> bytes | None:
        with self._lock:
            return self._cached.get(tag)


def etag(*parts: object) -> str:
    """Compute a weak ETag from everything that a rendering depends on.

    Weak, since two processes may draw different bytes, and since the compressed body has the same ETag.
    """
    digest = hashlib.sha256("\0".join(map(str, (VERSION, *parts))).encode()).hexdigest()
    return f'W/"{digest[:32]}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether If-None-Match contains an ETag, by weak comparison (RFC 9110, 8.8.3.2)."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or _opaque(tag) in {_opaque(part.strip()) for part in given.split(",")}


def _opaque(tag: str) -> str:
    return plain_tag(tag.removeprefix("W/"))
