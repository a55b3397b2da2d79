"""Traffic for a lab: event streams that stay open, and requests at a steady rate, out of one process of its own.

`python -m benchmarks.requests URL EXPERIMENT NUM_EXPERIMENTS STREAMS RATE` sends until its standard input closes, then
prints what came of it as JSON. A process of its own, since what measures must not slow down what is measured with it.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

SETTLING_SECONDS = 1.0
API = "/api/v1/experiments"


@dataclass
class Traffic:
    """Traffic while a `with` block runs; what came of it adds up over several."""

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
        self.num_messages += found["messages"]
        self.milliseconds += found["milliseconds"]
        self.errors += found["errors"]
        self.seconds += found["seconds"]


@dataclass
class Sender:
    """What one process sends."""

    host: str
    port: int
    experiment_id: int
    num_experiments: int
    streams: int = 0
    messages: int = 0
    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    picks: random.Random = field(default_factory=lambda: random.Random(3))

    async def listen(self) -> None:
        """Keep one event stream open and count what comes."""
        reader, writer = await self._send(f"{API}/{self.experiment_id}/events")
        try:
            status = await reader.readline()
            if b" 200 " not in status:
                self.errors.append(f"a stream: {status!r}")
                return
            self.streams += 1
            try:
                while line := await reader.readline():
                    self.messages += line.startswith(b"event:")
                self.streams -= 1  # it ended; one that is cancelled is open until then
            except OSError:
                self.streams -= 1
        finally:
            writer.close()

    async def ask_steadily(self, rate: float) -> None:
        """Begin so many requests a second, whether or not the ones before are answered."""
        loop = asyncio.get_running_loop()
        began, count = loop.time(), 0
        pending: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(max(0.0, began + count / rate - loop.time()))
            task = asyncio.create_task(self.ask(self._next_path(count)))
            pending.add(task)
            task.add_done_callback(pending.discard)
            count += 1

    async def ask(self, path: str) -> None:
        """One request, over a connection of its own."""
        began = time.perf_counter()
        try:
            reader, writer = await self._send(path)
            answer = await reader.read()
            writer.close()
        except OSError as error:
            self.errors.append(f"{path}: {error!r}")
            return
        if not answer.startswith(b"HTTP/1.1 200"):
            self.errors.append(f"{path}: {answer[:60]!r}")
        self.milliseconds.append(round((time.perf_counter() - began) * 1000, 2))

    def _next_path(self, count: int) -> str:
        """Of fifty: one picture, and lists, single experiments and metrics in equal parts."""
        pick = self.picks.randint(1, self.num_experiments)
        if count % 50 == 0:
            return f"{API}/{pick}/curves.png"
        return [
            f"{API}?limit=20&sort={self.picks.choice(['created', 'val_accuracy.best', 'name'])}",
            f"{API}/{pick}",
            f"{API}/{pick}/metrics",
        ][count % 3]

    async def _send(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
        return reader, writer


async def send(sender: Sender, num_streams: int, rate: float) -> dict[str, object]:
    """Send until standard input closes."""
    tasks = [asyncio.create_task(sender.listen()) for _ in range(num_streams)]
    tasks.append(asyncio.create_task(sender.ask_steadily(rate)))
    began = time.monotonic()
    await asyncio.to_thread(sys.stdin.read)
    seconds, streams = time.monotonic() - began, sender.streams
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "streams": streams,
        "messages": sender.messages,
        "milliseconds": sender.milliseconds,
        "errors": sender.errors,
        "seconds": seconds,
    }


def main() -> None:
    """Send what the command line says."""
    url, experiment_id, num_experiments, streams, rate = sys.argv[1:]
    host, _, port = url.removeprefix("http://").rpartition(":")
    sender = Sender(host, int(port), int(experiment_id), int(num_experiments))
    print(json.dumps(asyncio.run(send(sender, int(streams), float(rate)))))


if __name__ == "__main__":
    main()
