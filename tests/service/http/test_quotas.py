"""Rate limiter: a token bucket per caller bounds bursts and the rate over time."""

import pytest

from models.errors import TooManyRequests
from service.http.quotas import RateLimiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_is_stopped_and_told_when_to_come_back() -> None:
    clock = Clock()
    limiter = RateLimiter("requests", capacity=3, seconds=60, clock=clock)
    for _ in range(3):
        limiter.take("ada")
    with pytest.raises(TooManyRequests) as caught:
        limiter.take("ada")
    assert caught.value.extra["retry_after_seconds"] == 20
    limiter.take("grace")
    clock.now = 20.0
    limiter.take("ada")
    with pytest.raises(TooManyRequests):
        limiter.check("ada")


def test_what_is_not_used_does_not_pile_up() -> None:
    clock = Clock()
    limiter = RateLimiter("requests", capacity=2, seconds=1, clock=clock)
    clock.now = 1000.0
    limiter.take("ada", 2)
    with pytest.raises(TooManyRequests):
        limiter.take("ada")
