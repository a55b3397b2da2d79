"""What a worker takes from the broker: numbers of experiments, and nothing else that somebody may have put there.

Celery and kombu suppose that what is on a queue was put there by themselves. An entry that is no JSON ends the worker;
one that is theirs in form may carry a start time in the far future, or other tasks to send afterwards. So an entry is
read here first. What does not say which experiment to train is dropped and logged; of what does, the number alone is
handed on.
"""

import base64
import json
from queue import Empty
from typing import Any
from uuid import uuid4

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis

from models.queue import QUEUE, TRAIN_TASK, experiment_in

log = structlog.get_logger(__name__)

SHOWN_CHARACTERS = 200


class Channel(redis.Channel):
    """A channel that outlives an entry which cannot be read."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors, *self.connection.channel_errors):
            raise
        except Exception as error:  # noqa: BLE001 (whatever an entry makes of a parser, it is that entry's and no other's)
            log.warning("dropped an entry of the queue that cannot be read", why=_brief(error))
            return True


class Transport(redis.Transport):
    """A transport that hands on what the lab has put on its queue."""

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


def message_for(experiment_id: int) -> dict[str, Any]:
    """A message as kombu keeps it, with the number alone in it."""
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


def take_only_our_own() -> None:
    """Have Celery's connections to Redis and Valkey in this process made by this module."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text):,} characters)"
