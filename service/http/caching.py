"""Cache of whole responses, each valid until the database rows behind it change.

Most requests to a lab are for the same few resources: the list, the running experiment, its curves. A route declares by
`cached_until` which number of the database (models.store.stamps) its answer depends on. An answer is cached with the
number read before it was made, and is valid as long as that number has not changed: a cached answer is never older
than a fresh query would be.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from cachetools import LRUCache
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.store.stamps import Stamps
from service.http.access import check_role
from service.http.headers import header_of
from service.http.negotiation import accepts_gzip
from service.http.prefix import prefix
from service.http.rendered import is_known

MAX_BYTES = 12_000_000
MAX_ANSWER_BYTES = 1_000_000
BYTES_BESIDE = 2_000
"""Memory of a cached answer beside its body: headers and Python objects."""

MAX_ADDRESSES, MAX_ADDRESS_LENGTH = 4096, 200
"""Of paths and queries whose route is remembered; longer ones are looked at again each time."""

Key = tuple[str, str, bytes, str | None, str]
"""Cache key: path prefix, path, query, Accept header, content coding."""
Number = int | tuple[Any, ...]
"""What an answer depends on: one number of the database, or several."""
Stamp = Callable[[Stamps, Mapping[str, str], QueryParams], Number | None]
"""Reads the number that an answer depends on, by path and query parameters; None if it cannot be known."""
StampOfAddress = Callable[[Stamps], Number | None]
"""The same for one path and query."""
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Found = TypeVar("Found")


def cached_until(stamp: Stamp) -> Callable[[Endpoint], Endpoint]:
    """Decorator: declare that a GET route's answers are valid until a number of the database changes."""

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.cached_until = stamp  # type: ignore[attr-defined]
        return endpoint

    return declare


def anything_changes(stamps: Stamps, path: Mapping[str, str], query: QueryParams) -> int | None:
    """Valid until anything in the database changes."""
    return stamps.of_everything()


def experiment_changes(stamps: Stamps, path: Mapping[str, str], query: QueryParams) -> int | None:
    """Valid until the experiment changes, its progress included."""
    return _of(stamps.of_experiment, path)


def history_changes(stamps: Stamps, path: Mapping[str, str], query: QueryParams) -> int | None:
    """Valid until an epoch, a state or a verdict of the experiment is stored."""
    return _of(stamps.of_history, path)


def study_changes(stamps: Stamps, path: Mapping[str, str], query: QueryParams) -> Number | None:
    """Valid until the study or one of its runs changes, progress included."""
    return _of(stamps.of_study, path, "study_id")


def _of(ask: Callable[[int], Found], path: Mapping[str, str], parameter: str = "experiment_id") -> Found | None:
    number = path[parameter]
    return ask(int(number)) if re.fullmatch(r"[1-9][0-9]{0,9}", number) else None


def cached_routes(root: str, routers: Iterable[APIRouter]) -> list[tuple[re.Pattern[str], Stamp]]:
    """List the path patterns below `root` of routes that use `cached_until`, each with its stamp function."""
    found = []
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and (stamp := getattr(route.endpoint, "cached_until", None)) is not None:
                found.append((compile_path(root + route.path)[0], stamp))
    return found


@dataclass(slots=True)
class Answer:
    """A cached response of status 200, with the stamp that it is valid for."""

    stamp: Number
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    route: Any
    num_bytes: int
    listed: Sequence[int] = ()
    """Ids of the experiments on a list's page."""
    list_stamp: tuple[Any, ...] | None = None
    """A list's own stamp: unaffected by changes that the list does not show."""

    def is_good(self, stamp: Number, stamps: Stamps) -> bool:
        """Whether the answer is still valid. `stamp` is the number read for the present request."""
        if self.stamp == stamp:
            return True
        if self.list_stamp is None or stamps.of_list(self.listed) != self.list_stamp:
            return False
        self.stamp = stamp
        return True

    async def send(self, scope: Scope, send: Send) -> None:
        """Send the answer, or 304 if If-None-Match names its ETag."""
        scope["route"] = self.route
        if (tag := dict(self.headers).get(b"etag")) and is_known(Request(scope), tag.decode()):
            of_body = (b"content-length", b"content-type", b"content-encoding")
            others = [pair for pair in self.headers if pair[0] not in of_body]
            await send({"type": "http.response.start", "status": 304, "headers": others})
            await send({"type": "http.response.body", "body": b""})
            return
        # a list of this response's own, to which headers are added on the way out
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.body})


class Caching:
    """ASGI middleware that answers repeated requests from memory. Equal concurrent requests are coalesced into one."""

    def __init__(self, app: ASGIApp, routes: Sequence[tuple[re.Pattern[str], Stamp]]) -> None:
        self.app = app
        self._routes = routes
        self._cached: LRUCache[Key, Answer] = LRUCache(MAX_BYTES, getsizeof=lambda answer: answer.num_bytes)
        self._making: dict[Key, asyncio.Future[None]] = {}
        self._find_remembered = lru_cache(MAX_ADDRESSES)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stamp_of = self._find_route(scope)
        if stamp_of is None:
            await self.app(scope, receive, send)
            return
        state, request = scope["app"].state, Request(scope)
        scope["caller"] = await state.authenticator.identify(request)
        check_role(scope["caller"], request)
        coding = "gzip" if accepts_gzip(header_of(scope, b"accept-encoding")) else ""
        key = (prefix(), scope["path"], scope["query_string"], header_of(scope, b"accept"), coding)
        while (making := self._making.get(key)) is not None:
            await asyncio.shield(making)  # a client that disconnects must not cancel what others wait for
        stamp = stamp_of(state.stamps)
        answer = self._cached.get(key)
        if stamp is None:
            await self.app(scope, receive, send)
        elif answer is not None and answer.is_good(stamp, state.stamps):
            await answer.send(scope, send)
        else:
            await self._make(key, stamp, scope, receive, send)

    def _find_route(self, scope: Scope) -> StampOfAddress | None:
        """Find what reads the stamp of a request's answer; None if its route's answers are not cached."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        path, query = scope["path"], scope["query_string"]
        find = self._find_remembered if len(path) + len(query) <= MAX_ADDRESS_LENGTH else self._find
        return find(path, query)

    def _find(self, path: str, query: bytes) -> StampOfAddress | None:
        for pattern, stamp in self._routes:
            if (match := pattern.match(path)) is not None:
                return _of_address(stamp, match.groupdict(), QueryParams(query))
        return None

    async def _make(self, key: Key, stamp: Number, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, cache its answer, and only then send it: a slow client delays no other."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        done = self._making[key] = asyncio.get_running_loop().create_future()
        try:
            await self.app(scope, receive, collect)
            body = b"".join(message.get("body", b"") for message in messages[1:])
            if messages and messages[0]["status"] == 200 and len(body) <= MAX_ANSWER_BYTES:
                answer = Answer(stamp, tuple(messages[0]["headers"]), body, scope.get("route"), _size(key, body))
                _stamp_list(answer, scope)
                self._cached[key] = answer
        finally:
            del self._making[key]
            done.set_result(None)
        for message in messages:
            await send(message)


def _of_address(stamp: Stamp, path: Mapping[str, str], query: QueryParams) -> StampOfAddress:
    return lambda stamps: stamp(stamps, path, query)


def _stamp_list(answer: Answer, scope: Scope) -> None:
    """Set a list's own stamp, unless the database has changed since before the list was made."""
    if (listed := scope.get("state", {}).get("listed")) is None:
        return
    stamps: Stamps = scope["app"].state.stamps
    found = stamps.of_list(listed)
    if stamps.of_everything() == answer.stamp:
        answer.listed, answer.list_stamp = listed, found


def _size(key: Key, body: bytes) -> int:
    """Estimate the bytes that a cached answer takes, its key and Python objects included."""
    return len(body) + sum(len(part or "") for part in key) + BYTES_BESIDE
