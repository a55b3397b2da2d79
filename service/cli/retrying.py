"""Repeats a request after the pause that a lab asks for (409, 429 or 503 with Retry-After)."""

import time
from collections.abc import Callable
from typing import TypeVar

TRY_AGAIN = (409, 429, 503)
MAX_TRIES, LONGEST_PAUSE_SECONDS = 10, 30.0

Answer = TypeVar("Answer")


def with_retries(send: Callable[[], Answer]) -> Answer:
    """Send a request, up to MAX_TRIES times while the lab asks to wait. Raises Problem for any other refusal."""
    from service.cli.client import Problem

    for attempt in range(MAX_TRIES):
        try:
            return send()
        except Problem as problem:
            pause = problem.document.get("retry_after_seconds")
            if problem.status not in TRY_AGAIN or not isinstance(pause, int | float) or attempt == MAX_TRIES - 1:
                raise
            time.sleep(min(max(pause, 0.1), LONGEST_PAUSE_SECONDS))
    raise AssertionError("unreachable")
