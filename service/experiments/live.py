"""Live events: one poller reads the database and publishes to the subscribers of each experiment.

A stream first replays the stored events after its client's last id, then follows. The database is polled four times a
second, whatever the number of streams, and not at all without one.
"""

import asyncio
import json
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import EpochalError, TooManyRequests, Unavailable
from models.progress import RunProgress
from models.store import Store, events
from models.store.stamps import Stamps
from models.store.states import EventKind
from models.store.tables import Event
from models.store.watching import Glimpse, glimpse
from service.http.access import Authenticator, Caller
from service.http.prefix import with_prefix_in
from service.http.queues import BoundedQueue

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
PING_SECONDS = 15.0
RECONNECT_MILLISECONDS = 2000
PAGE = 500
MAX_STREAMS = 1000
MAX_STREAMS_A_KEY = 50
MAX_WAITING = 256
"""Queue size of a subscriber; one that falls further behind reads from the database again."""
OVERLAP = 200
"""Ids that are read again on PostgreSQL, where a transaction with a smaller id may commit after one with a larger."""


@dataclass(frozen=True, slots=True)
class Message:
    """A server-sent event, encoded once for all subscribers."""

    id: int | None
    """The stored event's id; None for what is not stored."""
    data: bytes
    ends: bool = False
    """Whether the experiment has ended with it."""
    names_addresses: bool = False
    """Whether it contains addresses of the lab, to be prefixed for each request (service.http.prefix)."""

    def for_current_request(self) -> bytes:
        """Return the bytes to send, with addresses under the current request's path prefix."""
        return with_prefix_in(self.data.decode("ascii")).encode() if self.names_addresses else self.data


PING = Message(None, b": still here\n\n")


@dataclass(eq=False)
class Subscriber:
    """One stream's subscription to an experiment's events, with its queue of messages."""

    experiment_id: int
    caller: Caller
    queue: asyncio.Queue[Message | None] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    lagging: bool = False
    disconnected: bool = False
    sent_at: float = field(default_factory=time.monotonic)

    def offer(self, message: Message | None) -> None:
        """Queue a message; if the queue is full, mark the subscriber as lagging, to read from the database again."""
        self.sent_at = time.monotonic()
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.lagging = True

    def disconnect(self) -> None:
        """End the stream without its final event."""
        self.disconnected = True
        self.offer(None)


class LiveEvents:
    """Publishes stored events to subscribers, by polling the database."""

    def __init__(self, store: Store, stamps: Stamps, authenticator: Authenticator) -> None:
        self._store = store
        self._stamps = stamps
        self._authenticator = authenticator
        self._open: set[Subscriber] = set()
        self._stamp: int | None = None
        """Stamp of the database as of the last poll."""
        self._subscribers: dict[int, set[Subscriber]] = defaultdict(set)
        self._has_subscribers = asyncio.Event()
        self._closed = False
        self._last_id = 0
        self._seen: set[int] = set()
        self._progress: dict[int, RunProgress] = {}
        self._queue = BoundedQueue("reads of events", places=4)  # a full thread pool must not stop the streams

    @property
    def num_streams(self) -> int:
        """Number of open streams."""
        return len(self._open)

    async def run(self) -> None:
        """Poll while there are subscribers; runs until cancelled."""
        while True:
            await self._has_subscribers.wait()
            try:
                await self._poll()
                await self._disconnect_revoked()
            except EpochalError as error:  # a busy or absent database: streams wait, then go on
                logger.warning("live events: %s", error.detail)
            self._ping()
            await asyncio.sleep(POLL_SECONDS)

    def _ping(self) -> None:
        """Send a keep-alive comment to subscribers that have received nothing for PING_SECONDS."""
        silent_since = time.monotonic() - PING_SECONDS
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                if subscriber.sent_at <= silent_since:
                    subscriber.offer(PING)

    async def _disconnect_revoked(self) -> None:
        """End the streams of keys that were revoked and of sessions that have ended."""
        for caller in {subscriber.caller for subscriber in self._open}:
            if not await self._authenticator.is_still_valid(caller):
                for subscriber in self._open:
                    if subscriber.caller == caller:
                        subscriber.disconnect()

    def close(self) -> None:
        """End every stream without its final event, so that clients reconnect."""
        self._closed = True
        for subscriber in self._open:
            subscriber.disconnect()

    def subscribe(self, experiment_id: int, caller: Caller) -> Subscriber:
        """Register a stream, to be removed by `unsubscribe`.

        Raises Unavailable at MAX_STREAMS, TooManyRequests at MAX_STREAMS_A_KEY of one key.
        """
        if self.num_streams >= MAX_STREAMS:
            raise Unavailable(f"{MAX_STREAMS} event streams are open already", retry_after_seconds=10)
        if caller.name is not None:
            its_own = sum(subscriber.caller.name == caller.name for subscriber in self._open)
            if its_own >= MAX_STREAMS_A_KEY:
                raise TooManyRequests(
                    f"'{caller.name}' has {its_own} event streams open, the most that one key may have",
                    fix="close some, or follow several experiments by GET /api/v1/experiments",
                    retry_after_seconds=10,
                )
        subscriber = Subscriber(experiment_id, caller)
        self._open.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove a stream."""
        self._open.discard(subscriber)

    async def stream(self, subscriber: Subscriber, last_id: int) -> AsyncIterator[bytes]:
        """Yield an experiment's events after `last_id` as text/event-stream, until it has ended."""
        experiment_id = subscriber.experiment_id
        await self._add(subscriber)
        try:
            yield f"retry: {RECONNECT_MILLISECONDS}\n\n".encode()
            lagging = True
            while not self._closed and not subscriber.disconnected:
                if lagging:
                    async for message in self._replay(experiment_id, last_id):
                        last_id = message.id or last_id
                        yield message.for_current_request()
                        if message.ends or subscriber.disconnected:
                            return
                next_message = await subscriber.queue.get()
                lagging = subscriber.lagging
                if subscriber.disconnected:
                    return
                if lagging or next_message is None:
                    subscriber.lagging = False
                    _empty(subscriber.queue)
                    continue
                if next_message.id is None or next_message.id > last_id:
                    last_id = next_message.id or last_id
                    yield next_message.for_current_request()
                    if next_message.ends:
                        return
        finally:
            self._remove(subscriber)

    async def _replay(self, experiment_id: int, last_id: int) -> AsyncIterator[Message]:
        """Yield the stored events after `last_id`, and the final one if the experiment has ended."""
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
        watched = list(self._subscribers)
        rows, states = await self._queue.run(self._read_news, watched)
        for row in rows:
            self._last_id = max(self._last_id, row.id)
            if row.id in self._seen:
                continue
            self._seen.add(row.id)
            if subscribers := self._subscribers.get(row.experiment_id):
                message = _message(row)
                for subscriber in subscribers:
                    subscriber.offer(message)
        self._seen = {identifier for identifier in self._seen if identifier > self._last_id - 2 * OVERLAP}
        if len(rows) == PAGE:
            return  # there are more events, and they come before any news of an end
        for experiment_id in watched:
            self._publish_state(experiment_id, states.get(experiment_id))
        self._stamp = stamp

    def _read_news(self, watched: list[int]) -> tuple[list[Event], dict[int, Glimpse]]:
        start = self._last_id if self._store.is_sqlite else max(0, self._last_id - OVERLAP)
        with self._store.reading() as session:
            return events.since(session, start, limit=PAGE), glimpse(session, watched)

    def _publish_state(self, experiment_id: int, now: Glimpse | None) -> None:
        """Send progress, if it has changed, or the end to the subscribers of one experiment."""
        message = None
        if now is None or now.status.terminal:
            message = _end(now)
        elif now.progress and now.progress != self._progress.get(experiment_id):
            self._progress[experiment_id] = now.progress
            message = _progress(now.progress)
        if message is not None:
            for subscriber in self._subscribers.get(experiment_id, ()):
                subscriber.offer(message)

    async def _add(self, subscriber: Subscriber) -> None:
        if not self._has_subscribers.is_set():
            self._last_id = await self._queue.run(self._latest_id)
        self._subscribers[subscriber.experiment_id].add(subscriber)
        self._has_subscribers.set()

    def _remove(self, subscriber: Subscriber) -> None:
        subscribers = self._subscribers[subscriber.experiment_id]
        subscribers.discard(subscriber)
        if not subscribers:
            del self._subscribers[subscriber.experiment_id]
            self._progress.pop(subscriber.experiment_id, None)
        if not self._subscribers:
            self._has_subscribers.clear()

    def _latest_id(self) -> int:
        with self._store.reading() as session:
            return events.latest_id(session)


def _empty(queue: asyncio.Queue[Message | None]) -> None:
    while not queue.empty():
        queue.get_nowait()


def _message(row: Event) -> Message:
    encoded = encode(row.kind, row.data, row.id)
    return Message(row.id, encoded, names_addresses=row.kind == EventKind.VERDICT)


def _progress(progress: RunProgress) -> Message:
    return Message(None, encode("progress", progress))


def _end(now: Glimpse | None) -> Message:
    """Build the last event of a stream; its status is "deleted" for a deleted experiment."""
    data = {"status": "deleted", "reason": None} if now is None else {"status": now.status, "reason": now.reason}
    return Message(None, encode("end", data), ends=True)


def encode(kind: str, data: Mapping[str, Any], event_id: int | None = None) -> bytes:
    """Encode an event for text/event-stream. JSON in ASCII has no line breaks, so data cannot end an event early."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode("ascii")
