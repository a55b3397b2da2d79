"""Pictures and tables that are made once for a state of an experiment: ETags, and a small memory of what was drawn."""

import hashlib
import threading
from collections.abc import Callable, Mapping

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import Response

from service.http.compression import MIN_BYTES, add_vary, compress, is_compressible
from service.http.negotiation import accepts_gzip

MAX_BYTES = 4_000_000
VERSION = "4"
"""Part of every tag; raise it when pictures of the same data look different."""


class Renderings:
    """The last renderings made, by their ETags. One is made at a time, so that the same one is not made twice."""

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
        """The rendering that `key` names in full: 304 if the client has it, from memory, or made now."""
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
    """A weak tag of everything that a rendering depends on.

    Weak, since two processes may draw different bytes, and since the compressed form bears the same.
    """
    digest = hashlib.sha256("\0".join(map(str, (VERSION, *parts))).encode()).hexdigest()
    return f'W/"{digest[:32]}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether If-None-Match names this tag, compared weakly (RFC 9110, 8.8.3.2)."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or _opaque(tag) in {_opaque(part.strip()) for part in given.split(",")}


def _opaque(tag: str) -> str:
    return tag.removeprefix("W/")
