"""The Celery queue, shared by service and worker: task name, settings, enqueueing, inspection.

A message is only the id of an experiment. It is a hint: the database decides whether there is anything to do, so a
message may be lost or delivered twice.
"""

import base64
import json
import os
import socket
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from models.errors import Unavailable
from models.settings import Settings

TRAIN_TASK = "worker.tasks.train"
QUEUE = "experiments"
DEFAULT_BROKER = "redis://127.0.0.1:6379/0"
"""Default port of Redis and Valkey."""
FOREVER_SECONDS = 365 * 24 * 3600
"""Visibility timeout: after it the broker would deliver a message again that is still being worked on."""
LARGEST_ID = 2**63 - 1
"""The largest integer of the database."""
OF_OTHER_PROJECTS = (
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"),
    *("CELERY_LOADER", "CELERY_CONFIG_MODULE", "DJANGO_SETTINGS_MODULE"),
    *("APP", "BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE", "SKIP_CHECKS"),
)
"""Variables that Celery and its command line prefer to what an application says, as they configure another project."""
PATIENCE_SECONDS = 1.0
"""How long an HTTP request may wait for the broker."""


def make_celery(settings: Settings) -> Celery:
    """The Celery application of this lab; connects to nothing yet. Removes OF_OTHER_PROJECTS from the environment."""
    for name in OF_OTHER_PROJECTS:
        os.environ.pop(name, None)
    url = broker_url(settings.broker_url or DEFAULT_BROKER, settings.broker_password)
    app = Celery("epochal", broker=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=QUEUE,
        task_create_missing_queues=True,
        task_ignore_result=True,
        # Acknowledged when a worker takes it: a late one would be delivered again while it still trains, or be stranded
        # until the visibility timeout when its worker is killed. The lease in the database does what it would do.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_publish_retry=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A broker that refuses (its disk is full, for example) is retried like one that is unreachable; by default
        # Celery ends the worker.
        broker_channel_error_retry=True,
        broker_connection_timeout=PATIENCE_SECONDS,
        broker_transport_options={
            "visibility_timeout": FOREVER_SECONDS,
            "socket_connect_timeout": PATIENCE_SECONDS,
            "socket_timeout": 2 * PATIENCE_SECONDS,
            "socket_keepalive": True,
        },
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
    )
    if url.startswith("rediss://") and "ssl_cert_reqs" not in url:
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return app


def broker_url(url: str, password: str | None = None) -> str:
    """The URL as Celery writes it: a socket is redis+socket:///path?virtual_host=0, for unix:///path?db=0 too.

    The password is put in where the URL has none.
    """
    scheme, separator, rest = url.partition("://")
    if password and "@" not in rest.partition("/")[0]:
        url = f"{scheme}{separator}:{quote(password, safe='')}@{rest}"
    if not url.startswith("unix://"):
        return url
    parts = urlsplit(url)
    database = dict(parse_qsl(parts.query)).get("db")
    credentials = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{credentials}{parts.path}" + (f"?virtual_host={database}" if database else "")


def enqueue(celery: Celery, *experiment_ids: int) -> None:
    """Put a message for each experiment on the queue.

    Raises Unavailable when the broker does not take one of them. Those before it are on the queue then; enqueueing them
    again does no harm.
    """
    try:
        # Checked first, since Celery's own connection takes seconds to detect an unreachable broker.
        _client(celery.conf.broker_url).ping()
        for experiment_id in experiment_ids:
            celery.send_task(TRAIN_TASK, args=[experiment_id], queue=QUEUE, ignore_result=True, retry=False)
    except (OperationalError, redis.RedisError, OSError) as error:
        why = "is out of memory" if "maxmemory" in str(error) else explain(error).reason
        first, more = experiment_ids[0], len(experiment_ids) - 1
        which = f"experiments {first} and {more} more wait" if more else f"experiment {first} waits"
        raise Unavailable(
            f"the broker {why}; {which}",
            fix="it is enqueued automatically once the broker answers and has memory",
            retry_after_seconds=5,
        ) from error


def queue_length(celery: Celery) -> int | None:
    """Count the messages waiting on the queue; None if the broker does not answer."""
    try:
        return int(_client(celery.conf.broker_url).llen(QUEUE))
    except (redis.RedisError, OSError):
        return None


def queued_messages(celery: Celery) -> set[int] | None:
    """Return the experiments with messages on the queue; None if the broker does not answer.

    Reads the whole queue: for when its length says that messages are missing, not for every look.
    """
    try:
        messages = _client(celery.conf.broker_url).lrange(QUEUE, 0, -1)
    except (redis.RedisError, OSError):
        return None
    return {identifier for message in messages if (identifier := _experiment_of(message)) is not None}


def _experiment_of(message: bytes | str) -> int | None:
    try:
        return experiment_in(json.loads(message))
    except (ValueError, RecursionError):
        return None


def experiment_in(message: Any) -> int | None:
    """The experiment that an entry of the queue is for, in kombu's form; None for what `enqueue` does not send."""
    try:
        if message["headers"]["task"] != TRAIN_TASK or message["content-type"] != "application/json":
            return None
        (number,), options, _ = json.loads(base64.b64decode(message["body"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if type(number) is int and 0 < number <= LARGEST_ID and options == {} else None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the broker cannot be used, as the end of a sentence about it; names no address and no password."""

    reason: str
    lasting: bool
    """Whether waiting will not help: it answers, and refuses."""


def find_trouble(celery: Celery) -> Trouble | None:
    """Why the broker cannot be used, or None if it can."""
    try:
        _client(celery.conf.broker_url).ping()
    except (redis.RedisError, OSError) as error:
        return explain(error)
    return None


def explain(error: Exception) -> Trouble:
    """Translate a broker client's exception into a reason that says what has to be corrected."""
    words = str(error)
    if isinstance(error, redis.AuthenticationError) or words.startswith(("NOAUTH", "WRONGPASS")):
        asks = any(part in words.lower() for part in ("required", "already authenticated"))
        return Trouble("requires a password" if asks else "refuses the user name or password", lasting=True)
    if "DB index" in words:
        return Trouble("has no database of that number", lasting=True)
    if isinstance(error, redis.exceptions.NoPermissionError):
        return Trouble("denies this user a permission that a lab needs", lasting=True)
    if isinstance(error, redis.exceptions.InvalidResponse):
        return Trouble("is neither a Redis nor a Valkey", lasting=True)
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return Trouble("is still loading its data", lasting=False)
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return Trouble("does not answer in time", lasting=False)
    if isinstance(error, redis.ConnectionError | OSError):
        if "max number of clients" in words:
            return Trouble("has reached its limit of connections", lasting=False)
        cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
        if isinstance(cause, socket.gaierror):
            return Trouble("cannot be found: no such host", lasting=False)
        why = cause.strerror if isinstance(cause, OSError) and cause.strerror else None
        return Trouble(f"does not answer ({why})" if why else "does not answer", lasting=False)
    return Trouble(f"refuses: {words}", lasting=False)


def ping(celery: Celery) -> bool:
    """Whether the broker answers."""
    return find_trouble(celery) is None


def live_workers(celery: Celery, timeout_seconds: float = 0.7) -> list[str]:
    """Return the sorted names of workers that answer a ping within the timeout; empty without a broker."""
    if not ping(celery):
        return []
    try:
        answers = celery.control.ping(timeout=timeout_seconds)
    except (OperationalError, redis.RedisError, OSError):
        return []
    return sorted(name for answer in answers for name in answer)


@lru_cache(maxsize=8)
def _client(url: str) -> redis.Redis:
    """A plain client with short timeouts: Celery's own connections wait and retry, as a worker's should."""
    plain = url
    if url.startswith("redis+socket://"):
        plain = "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    patience = PATIENCE_SECONDS / 2
    return redis.Redis.from_url(plain, socket_timeout=patience, socket_connect_timeout=patience, retry=None)
