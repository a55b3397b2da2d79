"""Rate limits per caller: in-memory token buckets for requests, uploads and failed logins."""

import math
import threading
import time
from collections.abc import Callable

from models.errors import TooManyRequests

MAX_CALLERS = 10_000


class RateLimiter:
    """Rate limiter with one token bucket per caller: at most `capacity` tokens, refilled evenly over `seconds`."""

    def __init__(
        self, what: str, *, capacity: float, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what = what
        self.capacity = capacity
        self.per_second = capacity / seconds
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, caller: str, amount: float = 1.0) -> None:
        """Take tokens from the caller's bucket. Raises TooManyRequests with the time until there are enough."""
        with self._lock:
            level, moment = self._level(caller)
            self._demand(caller, level, amount)
            self._levels[caller] = (level - amount, moment)

    def check(self, caller: str) -> None:
        """Check that the caller's bucket has a token, without taking it. Raises TooManyRequests."""
        with self._lock:
            self._demand(caller, self._level(caller)[0], 1.0)

    def _demand(self, caller: str, level: float, amount: float) -> None:
        if amount > level:
            wait = math.ceil((min(amount, self.capacity) - level) / self.per_second)
            raise TooManyRequests(
                f"'{caller}' has used up its {self.what}",
                fix=f"wait {wait} s and send it again",
                retry_after_seconds=wait,
            )

    def _level(self, caller: str) -> tuple[float, float]:
        moment = self._clock()
        if caller not in self._levels and len(self._levels) >= MAX_CALLERS:
            self._levels.clear()  # names of keys and addresses only; resetting them is harmless
        level, before = self._levels.get(caller, (self.capacity, moment))
        return min(self.capacity, level + (moment - before) * self.per_second), moment
