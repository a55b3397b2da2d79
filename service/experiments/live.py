"""Live events: one poller reads the database, and every stream gets what concerns its experiment.

A stream first replays what is stored after the id that its client saw last, then follows. However many streams there
are, the database is asked once a quarter of a second whether it has changed, and not at all when nobody listens.
"""

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from models.errors import EpochalError, TooManyRequests, Unavailable
from models.store import Store, events
from models.store.stamps import Stamps
from models.store.states import EventKind
from models.store.tables import Event
from models.store.watching import Glimpse, glimpse
from service.http.access import Authenticator, Caller
from service.http.prefix import under_in
from service.http.queues import BoundedQueue

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
PING_SECONDS = 15.0
RECONNECT_MILLISECONDS = 2000
PAGE = 500
MAX_STREAMS = 1000
MAX_STREAMS_A_KEY = 50
MAX_WAITING = 256
"""Messages that a slow reader may fall behind before it is sent back to the database."""
OVERLAP = 200
"""Ids that are read again on PostgreSQL, where a transaction with a smaller id may commit after one with a larger."""


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent event, encoded once for all its readers."""

    id: int | None
    """The stored event's id; None for what is not stored."""
    data: bytes
    ends: bool = False
    """Whether the experiment has ended with it."""
    names_addresses: bool = False
    """Whether it gives advice with addresses of the lab in it, which every reader gets under its own path prefix."""

    def for_this_reader(self) -> bytes:
        """The event for the request that is being answered."""
        return under_in(self.data.decode("ascii")).encode() if self.names_addresses else self.data


PING = Message(None, b": still here\n\n")


@dataclass(eq=False)
class Reader:
    """Whoever follows an experiment by one stream."""

    experiment_id: int
    caller: Caller
    queue: asyncio.Queue[Message | None] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    lagging: bool = False
    dismissed: bool = False
    told_at: float = field(default_factory=time.monotonic)

    def offer(self, message: Message | None) -> None:
        """Hand over a message; one too many marks the reader as lagging, and it reads the database instead."""
        self.told_at = time.monotonic()
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.lagging = True

    def dismiss(self) -> None:
        """End the stream without its final event."""
        self.dismissed = True
        self.offer(None)


class LiveEvents:
    """The poller and its readers."""

    def __init__(self, store: Store, stamps: Stamps, authenticator: Authenticator) -> None:
        self._store = store
        self._stamps = stamps
        self._authenticator = authenticator
        self._admitted: set[Reader] = set()
        self._stamp: int | None = None
        """That of what every reader has been told."""
        self._readers: dict[int, set[Reader]] = defaultdict(set)
        self._someone_listens = asyncio.Event()
        self._closed = False
        self._last_id = 0
        self._seen: set[int] = set()
        self._progress: dict[int, Any] = {}
        self._queue = BoundedQueue("reads of events", places=4)  # a full thread pool must not stop the streams

    @property
    def num_streams(self) -> int:
        """Streams that are open now."""
        return len(self._admitted)

    async def run(self) -> None:
        """Poll for as long as there are readers; never ends by itself."""
        while True:
            await self._someone_listens.wait()
            try:
                await self._poll()
                await self._dismiss_revoked()
            except EpochalError as error:  # a busy or absent database: streams wait, then go on
                logger.warning("live events: %s", error.detail)
            self._ping()
            await asyncio.sleep(POLL_SECONDS)

    def _ping(self) -> None:
        """Show the readers that have not been told anything for a while that the stream lives."""
        silent_since = time.monotonic() - PING_SECONDS
        for readers in self._readers.values():
            for reader in readers:
                if reader.told_at <= silent_since:
                    reader.offer(PING)

    async def _dismiss_revoked(self) -> None:
        """End the streams of keys that were revoked and of sessions that have ended."""
        for caller in {reader.caller for reader in self._admitted}:
            if not await self._authenticator.is_still_valid(caller):
                for reader in self._admitted:
                    if reader.caller == caller:
                        reader.dismiss()

    def close(self) -> None:
        """End every stream without its final event, so that clients connect again elsewhere or later."""
        self._closed = True
        for reader in self._admitted:
            reader.dismiss()

    def admit(self, experiment_id: int, caller: Caller) -> Reader:
        """A place for one stream, to be given back by `leave`.

        Raises Unavailable when there are as many streams as one process should feed, TooManyRequests when there are as
        many as one key may have.
        """
        if self.num_streams >= MAX_STREAMS:
            raise Unavailable(f"{MAX_STREAMS} event streams are open already", retry_after_seconds=10)
        if caller.name is not None:
            its_own = sum(reader.caller.name == caller.name for reader in self._admitted)
            if its_own >= MAX_STREAMS_A_KEY:
                raise TooManyRequests(
                    f"'{caller.name}' has {its_own} event streams open, as many as one key may have",
                    fix="close some, or follow several experiments by GET /api/v1/experiments",
                    retry_after_seconds=10,
                )
        reader = Reader(experiment_id, caller)
        self._admitted.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """Give a place back."""
        self._admitted.discard(reader)

    async def stream(self, reader: Reader, last_id: int) -> AsyncIterator[bytes]:
        """An experiment's events after `last_id` as text/event-stream, until it has ended."""
        experiment_id = reader.experiment_id
        await self._add(reader)
        try:
            yield f"retry: {RECONNECT_MILLISECONDS}\n\n".encode()
            lagging = True
            while not self._closed and not reader.dismissed:
                if lagging:
                    async for message in self._replay(experiment_id, last_id):
                        last_id = message.id or last_id
                        yield message.for_this_reader()
                        if message.ends or reader.dismissed:
                            return
                next_message = await reader.queue.get()
                lagging = reader.lagging
                if reader.dismissed:
                    return
                if lagging or next_message is None:
                    reader.lagging = False
                    _empty(reader.queue)
                    continue
                if next_message.id is None or next_message.id > last_id:
                    last_id = next_message.id or last_id
                    yield next_message.for_this_reader()
                    if next_message.ends:
                        return
        finally:
            self._remove(reader)

    async def _replay(self, experiment_id: int, last_id: int) -> AsyncIterator[Message]:
        """What is stored after `last_id`, and the end if the experiment has ended."""
        while True:
            messages, now = await self._queue.run(self._read_page, experiment_id, last_id)
            for message in messages:
                last_id = message.id or last_id
                yield message
            if len(messages) < PAGE:
                if now is None or now.status.terminal:
                    yield _end(now)
                elif now.progress:
                    yield _progress(now.progress)
                return

    def _read_page(self, experiment_id: int, last_id: int) -> tuple[list[Message], Glimpse | None]:
        with self._store.reading() as session:
            rows = events.since(session, last_id, experiment_id, limit=PAGE)
            now = glimpse(session, [experiment_id]).get(experiment_id)
            return [_message(row) for row in rows], now

    async def _poll(self) -> None:
        stamp = self._stamps.of_everything()
        if stamp is not None and stamp == self._stamp:
            return
        watched = list(self._readers)
        rows, states = await self._queue.run(self._read_news, watched)
        for row in rows:
            self._last_id = max(self._last_id, row.id)
            if row.id in self._seen:
                continue
            self._seen.add(row.id)
            if readers := self._readers.get(row.experiment_id):
                message = _message(row)
                for reader in readers:
                    reader.offer(message)
        self._seen = {identifier for identifier in self._seen if identifier > self._last_id - 2 * OVERLAP}
        if len(rows) == PAGE:
            return  # there are more events, and they come before any news of an end
        for experiment_id in watched:
            self._tell_state(experiment_id, states.get(experiment_id))
        self._stamp = stamp

    def _read_news(self, watched: list[int]) -> tuple[list[Event], dict[int, Glimpse]]:
        start = self._last_id if self._store.is_sqlite else max(0, self._last_id - OVERLAP)
        with self._store.reading() as session:
            return events.since(session, start, limit=PAGE), glimpse(session, watched)

    def _tell_state(self, experiment_id: int, now: Glimpse | None) -> None:
        """Tell progress that has moved, and the end, to the readers of one experiment."""
        message = None
        if now is None or now.status.terminal:
            message = _end(now)
        elif now.progress and now.progress != self._progress.get(experiment_id):
            self._progress[experiment_id] = now.progress
            message = _progress(now.progress)
        if message is not None:
            for reader in self._readers.get(experiment_id, ()):
                reader.offer(message)

    async def _add(self, reader: Reader) -> None:
        if not self._someone_listens.is_set():
            self._last_id = await self._queue.run(self._latest_id)
        self._readers[reader.experiment_id].add(reader)
        self._someone_listens.set()

    def _remove(self, reader: Reader) -> None:
        readers = self._readers[reader.experiment_id]
        readers.discard(reader)
        if not readers:
            del self._readers[reader.experiment_id]
            self._progress.pop(reader.experiment_id, None)
        if not self._readers:
            self._someone_listens.clear()

    def _latest_id(self) -> int:
        with self._store.reading() as session:
            return events.latest_id(session)


def _empty(queue: asyncio.Queue[Message | None]) -> None:
    while not queue.empty():
        queue.get_nowait()


def _message(row: Event) -> Message:
    encoded = encode(row.kind, row.data, row.id)
    return Message(row.id, encoded, names_addresses=row.kind == EventKind.VERDICT)


def _progress(progress: dict[str, Any]) -> Message:
    return Message(None, encode("progress", progress))


def _end(now: Glimpse | None) -> Message:
    """The last event of a stream. A deleted experiment's says so."""
    data = {"status": "deleted", "reason": None} if now is None else {"status": now.status, "reason": now.reason}
    return Message(None, encode("end", data), ends=True)


def encode(kind: str, data: dict[str, Any], event_id: int | None = None) -> bytes:
    """One event as it goes over the wire. JSON in ASCII has no line breaks and cannot end an event early."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode("ascii")
