"""The keys and sessions that are good now, kept in memory: knowing a caller takes no look into the database.

They are few. They are read again as soon as the database may say something else: a key that was made works at once, a
session that was ended here is over at once, a key that another process revoked is noticed within a second, and wrong
keys, however many, cost one query at a time at most.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from models.store import Store, sessions
from models.store.sessions import Credential
from models.store.stamps import Stamps
from service.http.queues import BoundedQueue

FRESH_SECONDS = 0.5


class Credentials:
    """Keys and sessions by the digests of what callers show. For the event loop's thread."""

    def __init__(self, store: Store, stamps: Stamps) -> None:
        self._store = store
        self._stamps = stamps
        self._stamp: int | None = None
        self._read_at = self._changed_at = float("-inf")
        self._known: Mapping[str, Credential] = {}
        self._reading = asyncio.Lock()
        self._queue = BoundedQueue("looks for keys", places=1)  # a full thread pool must not keep callers out

    async def find(self, digest: str) -> Credential | None:
        """Whose it is; None for what is unknown, revoked, ended or expired."""
        if time.monotonic() - self._read_at > FRESH_SECONDS or self._read_at <= self._changed_at:
            await self._refresh()
        found = self._known.get(digest)
        if found is None:
            await self._refresh()
            found = self._known.get(digest)
        return found if found is None or found.expires_at is None or found.expires_at > datetime.now(UTC) else None

    def changed(self) -> None:
        """Say that this process has ended one: what was read before this moment serves nobody after it."""
        self._changed_at = time.monotonic()

    async def _refresh(self) -> None:
        """Read again what has been read before this moment, unless the database is still the same."""
        asked_at = time.monotonic()
        async with self._reading:
            if self._read_at >= asked_at:
                return  # read for somebody else while this one waited
            now, stamp = time.monotonic(), self._stamps.of_everything()
            if stamp is None or stamp != self._stamp:
                self._known = await self._queue.run(self._read)
            self._stamp, self._read_at = stamp, now

    def _read(self) -> dict[str, Credential]:
        with self._store.reading() as session:
            return {found.sha256: found for found in sessions.credentials(session)}
