"""Sends webhook messages that are due, in the background of the API's process."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from importlib import metadata

from models.errors import EpochalError
from models.store import Store, webhooks
from models.store.columns import now
from models.store.webhooks import Claimed, Outcome
from models.webhooks import sign
from service.http.queues import BoundedQueue
from service.webhooks.connect import Connector

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
AT_ONCE = 16
"""Messages that are being sent at a time."""
EACH = 2
"""Of those, to one webhook, so that a slow one holds up no other."""
USER_AGENT = f"Epochal/{metadata.version('epochal')}"


class Sender:
    """Claims deliveries that are due, sends them, and stores the outcomes."""

    def __init__(self, store: Store, connector: Connector, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._connector = connector
        self._clock = clock
        self._busy: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue = BoundedQueue("webhooks", places=2)  # a full thread pool, or a locked database, stops nothing else

    async def run(self) -> None:
        """Send messages that are due, until cancelled; those in transit then are sent again later."""
        try:
            while True:
                try:
                    await self.start_due()
                except EpochalError as error:  # a busy or absent database: tried again
                    logger.warning("webhooks: %s", error.detail)
                await self._wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait(self) -> None:
        """Wait a second, or until a message has been sent and there is room for the next."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(POLL_SECONDS)

    async def start_due(self) -> list[asyncio.Task[None]]:
        """Claim deliveries that are due and begin to send them. Returns a task for each message."""
        room = AT_ONCE - sum(self._busy.values())
        if room <= 0:
            return []
        claimed = await self._queue.run(self._claim, room)
        self._busy.update(one.webhook_id for one in claimed)
        begun = [asyncio.create_task(self._send(one)) for one in claimed]
        for task in begun:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return begun

    def _claim(self, room: int) -> list[Claimed]:
        moment = self._clock()
        with self._store.reading() as session:
            if not webhooks.any_due(session, moment):
                return []
        with self._store.writing() as session:
            return webhooks.claim_due(session, moment, busy=dict(self._busy), each=EACH, total=room)

    async def _send(self, claimed: Claimed) -> None:
        try:
            body = claimed.body.encode()
            outcome = await self._connector.post(claimed.url, headers_of(claimed, body), body)
            await self._queue.run(self._settle, claimed, outcome)
        except EpochalError as error:  # the database: once the claim has run out, it is sent again
            logger.warning("webhooks: %s", error.detail)
        finally:
            self._busy -= Counter({claimed.webhook_id: 1})  # drops a count of zero

    def _settle(self, claimed: Claimed, outcome: Outcome) -> None:
        with self._store.writing() as session:
            webhooks.settle(session, claimed, outcome, self._clock(), random.random())
        if not outcome.delivered:  # without the address, of which a part may be a secret
            logger.info(
                "delivery %d to webhook %d failed: %s", claimed.delivery_id, claimed.webhook_id,
                outcome.status or outcome.answer,
            )  # fmt: skip


def headers_of(claimed: Claimed, body: bytes) -> dict[str, str]:
    """The headers of a message, signed for this attempt."""
    timestamp = int(time.time())
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": claimed.message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(claimed.secret, claimed.message_id, timestamp, body),
    }
