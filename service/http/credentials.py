"""In-memory cache of the valid keys and sessions, so that authentication needs no query.

They are few. They are read again when the database may have changed: a new key works at once, a session ended here is
invalid at once, a key revoked by another process is noticed within a second, and wrong keys, however many, cost at most
one query at a time.
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
    """Valid keys and sessions by SHA-256 of the token. To be used from the event loop's thread."""

    def __init__(self, store: Store, stamps: Stamps) -> None:
        self._store = store
        self._stamps = stamps
        self._stamp: int | None = None
        self._read_at = self._changed_at = float("-inf")
        self._known: Mapping[str, Credential] = {}
        self._reading = asyncio.Lock()
        self._queue = BoundedQueue("key look-ups", places=1)  # a full thread pool must not block authentication

    async def find(self, digest: str) -> Credential | None:
        """Look up a credential; None if it is unknown, revoked, ended or expired."""
        if time.monotonic() - self._read_at > FRESH_SECONDS or self._read_at <= self._changed_at:
            await self._refresh()
        found = self._known.get(digest)
        if found is None:
            await self._refresh()
            found = self._known.get(digest)
        return found if found is None or found.expires_at is None or found.expires_at > datetime.now(UTC) else None

    def invalidate(self) -> None:
        """Invalidate what was read before now, because this process has ended a session."""
        self._changed_at = time.monotonic()

    async def _refresh(self) -> None:
        """Read the credentials again if the database has changed since they were last read."""
        asked_at = time.monotonic()
        async with self._reading:
            if self._read_at >= asked_at:
                return  # another request has read them meanwhile
            now, stamp = time.monotonic(), self._stamps.of_everything()
            if stamp is None or stamp != self._stamp:
                self._known = await self._queue.run(self._read)
            self._stamp, self._read_at = stamp, now

    def _read(self) -> dict[str, Credential]:
        with self._store.reading() as session:
            return {found.sha256: found for found in sessions.credentials(session)}
