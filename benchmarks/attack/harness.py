"""Harness of the attacks: a registry, a lab that requires keys, and a monitored client beside the attacker.

    @attack(1, "...", done="...", promise="...")
    def questions(lab: Target) -> str: ...          raises Broken where the promise is not kept

Everything goes to 127.0.0.1, and is bounded in count and time.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.faults.harness import API, Bench, Broken, expect, short_spec, wait_until
from benchmarks.faults.sending import Answer, address_of, connect, parse_answer, raw, read_all
from models.store import Status, keys
from models.store.states import Role

__all__ = [
    "API", "Answer", "Broken", "address_of", "connect", "expect", "parse_answer", "raw", "read_all", "wait_until",
]  # fmt: skip

SLOWEST_P99_SECONDS = 0.25
MOST_GROWTH_MB = 64.0
"""The most by which the API's memory may have grown after an attack and SETTLING_SECONDS."""
SETTLING_SECONDS = 5.0
OTHER_ADDRESS = "127.0.0.2"


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: its description, the guarantee that must hold, and the function that runs it."""

    number: int
    title: str
    done: str
    promise: str
    run: Callable[["Target"], str]
    watched: bool
    """Whether other clients must not notice; else only the promise counts."""


ATTACKS: dict[int, Attack] = {}


def attack(
    number: int, title: str, *, done: str, promise: str, watched: bool = True
) -> Callable[[Callable[["Target"], str]], Callable[["Target"], str]]:
    """Register a function as the attack of this number."""

    def register(run: Callable[["Target"], str]) -> Callable[["Target"], str]:
        assert number not in ATTACKS, f"two attacks have the number {number}"
        ATTACKS[number] = Attack(number, title, done, promise, run, watched)
        return run

    return register


@dataclass
class Seen:
    """Latencies, failures and memory that were measured during an attack."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0
    growth_mb: float = 0.0
    peak_mb: float = 0.0

    def quantiles(self, name: str) -> tuple[float, float]:
        """The median and the 99th percentile of the latencies, in seconds."""
        values = self.seconds.get(name) or [0.0]
        if len(values) < 2:
            return values[0], values[0]
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return cuts[49], cuts[98]

    def complaints(self) -> list[str]:
        """The limits that were exceeded, in sentences."""
        found = [
            f"{name}'s p99 was {self.quantiles(name)[1] * 1000:.0f} ms"
            for name in self.seconds
            if self.quantiles(name)[1] > SLOWEST_P99_SECONDS
        ]
        if self.failed:
            found.append(f"{self.failed} requests of others failed")
        if self.growth_mb > MOST_GROWTH_MB:
            found.append(f"the API holds {self.growth_mb:.0f} MB more")
        return found


class Target:
    """A lab with keys on, one key of each role, and the ways to attack it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        with bench.store.writing() as session:
            self.viewer = keys.create(session, "viewer", Role.VIEWER)[1]
            self.other = keys.create(session, "other", Role.SUBMITTER)[1]
        self.submitter = str(bench.lab.first_key)
        self.url = bench.lab.url
        self._trained: int | None = None

    @property
    def api(self) -> psutil.Process:
        assert self.bench.lab.api is not None
        return psutil.Process(self.bench.lab.api.pid)

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """A client with a key, or none."""
        known = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers={**known, **headers}, timeout=30.0, trust_env=False)

    def get(self, path: str, key: str | None = None, **kwargs: Any) -> httpx.Response:
        with self.client(key) as client:
            return client.get(path, **kwargs)

    def head(self, method: str, path: str, key: str | None = None, *lines: str) -> bytes:
        """The head of a request as bytes, with its last line."""
        known = [f"Authorization: Bearer {key}"] if key else []
        host, port = address_of(self.bench)
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", *known, *lines, "", ""]).encode()

    def trained(self) -> int:
        """An experiment with weights."""
        if self._trained is None:
            self._trained = self.bench.submit(epochs=1)
            self.bench.wait_for(self._trained, Status.COMPLETED)
        return self._trained

    def at_once(self, count: int, action: Callable[[int], Any]) -> list[Any]:
        """Call a function this many times concurrently."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(action, range(count)))

    def submit(self, key: str, **changes: Any) -> httpx.Response:
        with self.client(key) as client:
            return client.post(f"{API}/experiments", json=short_spec(**changes))

    @property
    def log(self) -> Path:
        assert self.bench.lab.api is not None
        return self.bench.lab.api.log

    @contextmanager
    def watched(self, seen: Seen) -> Iterator[None]:
        """Measure another client's latency and the API's memory within this block."""
        address = self.url.removeprefix("http://")
        command = [sys.executable, "-m", "benchmarks.attack.watching", address, self.other, OTHER_ADDRESS]
        self.get("/healthz")
        memory = self.api.memory_info().rss
        watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        try:
            yield
        finally:
            seen.peak_mb = (self.api.memory_info().rss - memory) / 1e6
            out, _ = watcher.communicate("", timeout=60)
            found = json.loads(out)
            seen.failed = found.pop("failed")
            seen.seconds = found
            deadline = time.monotonic() + SETTLING_SECONDS
            while True:
                seen.growth_mb = (self.api.memory_info().rss - memory) / 1e6
                if seen.growth_mb <= MOST_GROWTH_MB / 2 or time.monotonic() > deadline:
                    break
                time.sleep(0.2)


def statuses(answers: list[Any]) -> str:
    """How often each status came, as text."""
    counts: dict[int, int] = {}
    for answer in answers:
        counts[answer] = counts.get(answer, 0) + 1
    return ", ".join(f"{status or 'no answer'} x {count}" for status, count in sorted(counts.items()))
