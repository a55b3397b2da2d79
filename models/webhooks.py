"""Webhook messages: event types, signatures, and the times of retries: Standard Webhooks (standardwebhooks.com)."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

SECRET_PREFIX = "whsec_"  # noqa: S105 (how the standard marks secrets)
SECRET_BYTES = 32
RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pauses after the first, second ... failed attempt, as the standard recommends; after the last one it is given up."""
JITTER = 0.2
"""Part of a pause by which it may be longer, so that what failed together is not sent again together."""


class WebhookEvent(StrEnum):
    """The type of an event that a webhook may be subscribed to."""

    EXPERIMENT_COMPLETED = "experiment.completed"
    """An experiment was trained to its end."""
    EXPERIMENT_FAILED = "experiment.failed"
    """An experiment ended with an error."""
    EXPERIMENT_DIVERGED = "experiment.diverged"
    """An experiment was stopped because a loss, gradient or weight was no longer finite."""
    EXPERIMENT_CANCELLED = "experiment.cancelled"
    """An experiment was cancelled."""
    STUDY_COMPLETED = "study.completed"
    """All of a study's runs have ended."""
    STUDY_FAILED = "study.failed"
    """None of a study's rows could be run."""
    STUDY_CANCELLED = "study.cancelled"
    """A study was cancelled."""
    TEST = "webhook.test"
    """A requested test; every webhook gets it."""


CHOICES = tuple(event for event in WebhookEvent if event is not WebhookEvent.TEST)
"""The event types that a webhook can be subscribed to."""


def new_secret() -> str:
    """A secret to sign with, in the standard's form."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of one message: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    text = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()


def write_body(event: WebhookEvent, moment: datetime, data: Mapping[str, Any]) -> str:
    """The body of a message, which is the same in every attempt."""
    document = {"type": event.value, "timestamp": moment.isoformat(timespec="milliseconds"), "data": dict(data)}
    return json.dumps(document, ensure_ascii=True, allow_nan=False)


def pause_after(failures: int, spread: float, asked_seconds: float = 0.0) -> float | None:
    """Seconds until the next attempt after so many failed ones; None when it is given up.

    `spread` is a random number from 0 to 1; `asked_seconds` what a receiver asked for by Retry-After, at most a day.
    """
    if failures > len(RETRY_SECONDS):
        return None
    pause = RETRY_SECONDS[failures - 1] * (1 + JITTER * spread)
    return max(pause, min(asked_seconds, RETRY_SECONDS[-1]))
