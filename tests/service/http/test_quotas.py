"""Token buckets: so many at once, so many over time, each caller its own."""

import pytest

from models.errors import TooManyRequests
from service.http.quotas import Buckets


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_is_stopped_and_told_when_to_come_back() -> None:
    clock = Clock()
    buckets = Buckets("requests", capacity=3, seconds=60, clock=clock)
    for _ in range(3):
        buckets.take("ada")
    with pytest.raises(TooManyRequests) as caught:
        buckets.take("ada")
    assert caught.value.extra["retry_after_seconds"] == 20
    buckets.take("grace")
    clock.now = 20.0
    buckets.take("ada")
    with pytest.raises(TooManyRequests):
        buckets.check("ada")


def test_what_is_not_used_does_not_pile_up() -> None:
    clock = Clock()
    buckets = Buckets("requests", capacity=2, seconds=1, clock=clock)
    clock.now = 1000.0
    buckets.take("ada", 2)
    with pytest.raises(TooManyRequests):
        buckets.take("ada")
