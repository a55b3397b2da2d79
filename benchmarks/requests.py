"""Traffic generator: open event streams, and requests at a steady rate, in a separate process.

`python -m benchmarks.requests URL EXPERIMENT NUM_EXPERIMENTS STREAMS RATE` opens the streams, sends requests while the
last line of its standard input was `ask`, and when that closes prints what came of it as JSON. A process of its own,
since what measures must not slow down what is measured with it.
"""

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop

SETTLING_SECONDS = 4.0
"""Until streams have been told what had happened before they were opened, and are live."""
LAST_ANSWERS_SECONDS = 0.5
API = "/api/v1/experiments"
LOOK_AT_RUNNING, LOOK_AT_NEW, NUM_NEW = 0.6, 0.3, 50
"""Of the requests for one experiment: those for the one that trains, and for one of the newest; the rest is for any."""


@dataclass
class Traffic:
    """Streams that are open while a `with` block runs, and requests while one of `asking()` does."""

    url: str
    experiment_id: int
    num_experiments: int
    streams: int
    rate: float
    num_streams: int = 0
    num_messages: int = 0
    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """How long requests were sent."""

    @property
    def pid(self) -> int:
        """The process that sends, while the `with` block runs."""
        return self._process.pid

    @property
    def requests_per_second(self) -> float:
        return len(self.milliseconds) / self.seconds if self.seconds else 0.0

    def __enter__(self) -> None:
        told = [self.url, self.experiment_id, self.num_experiments, self.streams, self.rate]
        command = [sys.executable, "-m", "benchmarks.requests", *map(str, told)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(SETTLING_SECONDS)

    def __exit__(self, *_: object) -> None:
        output, _errors = self._process.communicate("")
        found = json.loads(output)
        self.num_streams = found["streams"]
        self.num_messages = found["messages"]
        self.milliseconds = found["milliseconds"]
        self.errors = found["errors"]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Send requests meanwhile."""
        began = time.monotonic()
        self._tell("ask")
        try:
            yield
        finally:
            self._tell("rest")
            self.seconds += time.monotonic() - began
            time.sleep(LAST_ANSWERS_SECONDS)

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()


class Stream(asyncio.Protocol):
    """One event stream that stays open; what comes is counted."""

    def __init__(self, sender: "Sender") -> None:
        self.sender = sender
        self.answered = False

    def connection_made(self, transport: Any) -> None:
        """Ask for the events of the experiment that trains."""
        transport.write(self.sender.request(f"{API}/{self.sender.experiment_id}/events"))

    def data_received(self, data: bytes) -> None:
        """Count messages; the response's head shows whether it is an event stream."""
        if not self.answered:
            self.answered = True
            if data.startswith(b"HTTP/1.1 200"):
                self.sender.streams += 1
            else:
                self.sender.errors.append(f"a stream: {data[:60]!r}")
        self.sender.messages += data.count(b"event: ")

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream has ended before its time."""
        self.sender.streams -= self.answered


class Connection(asyncio.Protocol):
    """One connection for requests, one after another, as a browser's are."""

    def __init__(self, sender: "Sender") -> None:
        self.sender = sender
        self.path = ""

    def connection_made(self, transport: Any) -> None:
        """Ready."""
        self.transport = transport

    def ask(self, path: str) -> None:
        """Send a request."""
        self.path, self.began = path, time.perf_counter()
        self.head, self.missing = b"", -1
        self.transport.write(self.sender.request(path))

    def data_received(self, data: bytes) -> None:
        """Wait for the last byte of the body."""
        if self.missing < 0:
            self.head += data
            head, found, data = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            length = re.search(rb"\r\ncontent-length: ([0-9]+)", head)
            self.missing = int(length[1]) if length else 0
        self.missing -= len(data)
        if self.missing <= 0:
            self.sender.milliseconds.append(round((time.perf_counter() - self.began) * 1000, 2))
            if not self.head.startswith(b"HTTP/1.1 200"):
                self.sender.errors.append(f"{self.path}: {self.head[:60]!r}")
            self.path = ""
            self.sender.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """An idle connection may be closed, one with a request may not."""
        if self in self.sender.idle:
            self.sender.idle.remove(self)
        elif self.path:
            self.sender.errors.append(f"{self.path}: the connection was closed")


@dataclass
class Sender:
    """What one process sends. As little work as can be: it runs on the machine that is measured."""

    host: str
    port: int
    experiment_id: int
    num_experiments: int
    streams: int = 0
    messages: int = 0
    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    picks: random.Random = field(default_factory=random.Random)
    idle: list[Connection] = field(default_factory=list)
    asking: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        """Open an event stream."""
        await asyncio.get_running_loop().create_connection(lambda: Stream(self), self.host, self.port)

    async def ask_steadily(self, rate: float) -> None:
        """Begin so many requests a second while it is to ask, whether or not the ones before are answered."""
        loop = asyncio.get_running_loop()
        count, due = 0, loop.time()
        while True:
            if not self.asking.is_set():
                await self.asking.wait()
                due = loop.time()
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += 1 / rate
            if not self.idle:
                _, connection = await loop.create_connection(lambda: Connection(self), self.host, self.port)
                self.idle.append(connection)
            self.idle.pop().ask(self._next_path(count))
            count += 1

    def request(self, path: str) -> bytes:
        """A GET as bytes."""
        return f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()

    def _next_path(self, count: int) -> str:
        """Of fifty: one picture, and lists, single experiments and metrics in equal parts."""
        pick = self._next_experiment()
        if count % 50 == 0:
            return f"{API}/{pick}/curves.png"
        return [
            f"{API}?limit=20&sort={self.picks.choice(['created', 'val_accuracy.best', 'name'])}",
            f"{API}/{pick}",
            f"{API}/{pick}/metrics",
        ][count % 3]

    def _next_experiment(self) -> int:
        """What people look at: the experiment that trains, one of the last, seldom one of all."""
        draw = self.picks.random()
        if draw < LOOK_AT_RUNNING:
            return self.experiment_id
        if draw < LOOK_AT_RUNNING + LOOK_AT_NEW:
            return self.picks.randint(max(1, self.num_experiments - NUM_NEW + 1), self.num_experiments)
        return self.picks.randint(1, self.num_experiments)


async def send(sender: Sender, num_streams: int, rate: float) -> dict[str, object]:
    """Execute commands from standard input until it closes."""
    await asyncio.gather(*(sender.listen() for _ in range(num_streams)))
    asking = asyncio.create_task(sender.ask_steadily(rate))
    while word := await asyncio.to_thread(sys.stdin.readline):
        (sender.asking.set if word.strip() == "ask" else sender.asking.clear)()
    asking.cancel()
    return {
        "streams": sender.streams,
        "messages": sender.messages,
        "milliseconds": sender.milliseconds,
        "errors": sender.errors,
    }


def main() -> None:
    """Send requests as given on the command line."""
    url, experiment_id, num_experiments, streams, rate = sys.argv[1:]
    host, _, port = url.removeprefix("http://").rpartition(":")
    sender = Sender(host, int(port), int(experiment_id), int(num_experiments))
    print(json.dumps(uvloop.run(send(sender, int(streams), float(rate)))))


if __name__ == "__main__":
    main()
