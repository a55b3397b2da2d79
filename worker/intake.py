"""Filters what a worker takes from the broker: only ids of experiments reach Celery.

Celery and kombu assume that every entry of a queue is their own. An entry that is not JSON ends the worker; a valid
message may carry a start time in the far future, or other tasks to send afterwards. So each entry is parsed here first.
One without the id of an experiment is dropped and logged; of the others only the id is passed on.
"""

import base64
import json
from queue import Empty
from typing import Any
from uuid import uuid4

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis

from models.plain import JsonObject
from models.queue import QUEUE, TRAIN_TASK, experiment_in

log = structlog.get_logger(__name__)

SHOWN_CHARACTERS = 200


class Channel(redis.Channel):
    """A channel that drops entries which cannot be read instead of raising."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors, *self.connection.channel_errors):
            raise
        except Exception as error:  # noqa: BLE001 (a parser may raise anything; only this entry is affected)
            log.warning("dropped an entry of the queue that cannot be read", why=_brief(error))
            return True


class Transport(redis.Transport):
    """A transport that delivers only the lab's own messages from the lab's queue."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        if queue != QUEUE:
            self._deliver_control(message, queue)
            return
        number = experiment_in(message)
        if number is None:
            log.warning("dropped an entry of the queue that is not the lab's", entry=_brief(message))
            return
        super()._deliver(message_for(number), queue)  # type: ignore[no-untyped-call]

    def _deliver_control(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors, *self.channel_errors):
            raise
        except Exception as error:  # noqa: BLE001 (the same)
            log.warning("dropped a control message that cannot be read", why=_brief(error))


def message_for(experiment_id: int) -> JsonObject:
    """A message in kombu's format whose only argument is the experiment's id."""
    return {
        "body": base64.b64encode(json.dumps([[experiment_id], {}, {}]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": TRAIN_TASK, "id": str(uuid4())},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
        },
    }


def install_transport() -> None:
    """Make Celery in this process use this module's transport for Redis and Valkey."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text):,} characters)"
