"""Answers that are kept until what they tell of changes, and sent again without asking for it.

A lab's readers ask for the same few things: the list, the experiment that runs, its curves. The database numbers its
changes (models.store.stamps): an answer is kept with the number of before it was made, and is good for as long as that
is still the number. Nobody is told anything that a reader of the database would not be told at that moment.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.store.stamps import Stamps
from service.http.documents import API
from service.http.negotiation import accepts_gzip
from service.http.prefix import prefix
from service.http.rendered import is_known

MAX_BYTES = 12_000_000
MAX_ANSWER_BYTES = 1_000_000
BYTES_BESIDE = 2_000
"""What an answer takes beside its body: headers, the objects themselves."""
PATH = re.compile(
    rf"{API}/experiments(?:/([1-9][0-9]{{0,9}})(/metrics|/metrics\.csv|/curves\.png|/curves\.svg|/verdict)?)?"
)
"""Lists, one experiment, and what its events tell the changes of: its epochs and its verdict."""

Key = tuple[str, str, bytes, str | None, str]
"""Path prefix, path, query, what form is preferred, and whether it is compressed."""


@dataclass(slots=True)
class Answer:
    """A whole response of status 200, and the stamp of what it tells."""

    stamp: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    route: Any
    listed: Sequence[int] = ()
    """The experiments on a list's page."""
    list_stamp: tuple[Any, ...] | None = None
    """A list's own stamp: it outlives changes that the list does not tell of."""

    def is_good(self, stamp: int, stamps: Stamps) -> bool:
        """Whether it would be the same if it were made now. `stamp` is that of its question."""
        if self.stamp == stamp:
            return True
        if self.list_stamp is None or stamps.of_list(self.listed) != self.list_stamp:
            return False
        self.stamp = stamp
        return True

    async def send(self, scope: Scope, send: Send) -> None:
        """Send it, or 304 if the client has it already."""
        scope["route"] = self.route
        if (tag := dict(self.headers).get(b"etag")) and is_known(Request(scope), tag.decode()):
            of_body = (b"content-length", b"content-type", b"content-encoding")
            kept = [pair for pair in self.headers if pair[0] not in of_body]
            await send({"type": "http.response.start", "status": 304, "headers": kept})
            await send({"type": "http.response.body", "body": b""})
            return
        # a list of this response's own, to which headers are added on the way out
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.body})


class Answers:
    """ASGI middleware that answers repeated questions from memory. One maker at a time for each question."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._kept: OrderedDict[Key, Answer] = OrderedDict()
        self._num_bytes = 0
        self._making: dict[Key, asyncio.Future[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not (found := PATH.fullmatch(scope["path"])):
            await self.app(scope, receive, send)
            return
        state = scope["app"].state
        request = Request(scope)
        scope["caller"] = await state.doorkeeper.identify(request)
        coding = "gzip" if accepts_gzip(request.headers.get("accept-encoding")) else ""
        key = (prefix(), scope["path"], scope["query_string"], request.headers.get("accept"), coding)
        while (making := self._making.get(key)) is not None:
            await asyncio.shield(making)  # a reader who goes must not take the others' maker along
        stamp = _stamp_of(state.stamps, found[1], found[2], scope["query_string"])
        answer = self._kept.get(key)
        if stamp is None:
            await self.app(scope, receive, send)
        elif answer is not None and answer.is_good(stamp, state.stamps):
            self._kept.move_to_end(key)
            await answer.send(scope, send)
        else:
            await self._make(key, stamp, scope, receive, send)

    async def _make(self, key: Key, stamp: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, keep the answer, and only then send it: a slow reader holds up nobody else."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        done = self._making[key] = asyncio.get_running_loop().create_future()
        try:
            await self.app(scope, receive, collect)
            body = b"".join(message.get("body", b"") for message in messages[1:])
            if messages and messages[0]["status"] == 200 and len(body) <= MAX_ANSWER_BYTES:
                answer = Answer(stamp, tuple(messages[0]["headers"]), body, scope.get("route"))
                _stamp_list(answer, scope)
                self._keep(key, answer)
        finally:
            del self._making[key]
            done.set_result(None)
        for message in messages:
            await send(message)

    def _keep(self, key: Key, answer: Answer) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._num_bytes -= _size(key, old)
        self._kept[key] = answer
        self._num_bytes += _size(key, answer)
        while self._num_bytes > MAX_BYTES:
            self._num_bytes -= _size(*self._kept.popitem(last=False))


def _stamp_list(answer: Answer, scope: Scope) -> None:
    """Give a list its own stamp, unless the database has changed since before it was made."""
    if (listed := scope.get("state", {}).get("listed")) is None:
        return
    stamps: Stamps = scope["app"].state.stamps
    found = stamps.of_list(listed)
    if stamps.of_everything() == answer.stamp:
        answer.listed, answer.list_stamp = listed, found


def _size(key: Key, answer: Answer) -> int:
    """Memory that an answer takes, its question and Python's own share included."""
    return len(answer.body) + sum(len(part or "") for part in key) + BYTES_BESIDE


def _stamp_of(stamps: Stamps, experiment_id: str | None, part: str | None, query: bytes) -> int | None:
    if experiment_id is None or (query and b"compare" in unquote_to_bytes(query)):  # of more than one experiment
        return stamps.of_everything()
    ask = stamps.of_experiment if part is None else stamps.of_history
    return ask(int(experiment_id))
