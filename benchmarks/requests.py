"""Traffic for a lab: event streams that stay open, and requests at a steady rate, out of one process of its own.

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import uvloop

SETTLING_SECONDS = 4.0
"""Until streams have been told what had happened before they were opened, and are live."""
LAST_ANSWERS_SECONDS = 0.5
API = "/api/v1/experiments"
LOOK_AT_RUNNING, LOOK_AT_NEW, NUM_NEW = 0.6, 0.3, 50
"""Of the requests for one experiment: those for the one that trains, and for one of the newest; the rest is for any."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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


@dataclass
class Sender:
    """What one process sends, over connections that stay open as a browser's do."""

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
        """Keep one event stream open and count what comes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            self._write(writer, f"{API}/{self.experiment_id}/events")
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                self.errors.append(f"a stream: {head[:60]!r}")
                return
            self.streams += 1
            try:
                while data := await reader.read(65536):
                    self.messages += data.count(b"event: ")
                self.streams -= 1  # it ended; one that is cancelled is open until then
            except OSError:
                self.streams -= 1
        finally:
            writer.close()

    async def ask_steadily(self, rate: float) -> None:
        """Begin so many requests a second while it is to ask, whether or not the ones before are answered."""
        loop = asyncio.get_running_loop()
        count = 0
        pending: set[asyncio.Task[None]] = set()
        due = loop.time()
        while True:
            if not self.asking.is_set():
                await self.asking.wait()
                due = loop.time()
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += 1 / rate
            task = asyncio.create_task(self.ask(self._next_path(count)))
            pending.add(task)
            task.add_done_callback(pending.discard)
            count += 1

    async def ask(self, path: str) -> None:
        """One request."""
        began = time.perf_counter()
        try:
            head = await self._exchange(path)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.errors.append(f"{path}: {error!r}")
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.errors.append(f"{path}: {head[:60]!r}")
        self.milliseconds.append(round((time.perf_counter() - began) * 1000, 2))

    async def _exchange(self, path: str) -> bytes:
        """Send a request over an idle connection, or a new one, and read the answer; returns its head."""
        while True:
            used = bool(self.idle)
            reader, writer = self.idle.pop() if used else await asyncio.open_connection(self.host, self.port)
            try:
                self._write(writer, path)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"\r\ncontent-length: ([0-9]+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
            except (OSError, asyncio.IncompleteReadError):
                writer.close()
                if not used:
                    raise
                continue  # the server had closed it meanwhile
            self.idle.append((reader, writer))
            return head

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

    def _write(self, writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())


async def send(sender: Sender, num_streams: int, rate: float) -> dict[str, object]:
    """Do as standard input says until it closes."""
    tasks = [asyncio.create_task(sender.listen()) for _ in range(num_streams)]
    tasks.append(asyncio.create_task(sender.ask_steadily(rate)))
    while word := await asyncio.to_thread(sys.stdin.readline):
        (sender.asking.set if word.strip() == "ask" else sender.asking.clear)()
    streams = sender.streams
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "streams": streams,
        "messages": sender.messages,
        "milliseconds": sender.milliseconds,
        "errors": sender.errors,
    }


def main() -> None:
    """Send what the command line says."""
    url, experiment_id, num_experiments, streams, rate = sys.argv[1:]
    host, _, port = url.removeprefix("http://").rpartition(":")
    sender = Sender(host, int(port), int(experiment_id), int(num_experiments))
    print(json.dumps(uvloop.run(send(sender, int(streams), float(rate)))))


if __name__ == "__main__":
    main()
