"""A lab with a trained experiment of each case, started as `epochal up` does, and clients that ask in a closed loop."""

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import httpx
import psutil

from benchmarks.faults.waiting import wait_until
from benchmarks.serving_networks import CASES, described, pictures, spec_of, weights_of
from models.files import sha256_of, write
from models.networks.export import export_described
from models.settings import Settings
from models.store import Store, artifacts, experiments, runs
from models.store.states import ArtifactKind, Status

LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
SETTLE_SECONDS = 0.2
"""For what a server does at once when it is continued: its timers have run out."""


@dataclass
class Answers:
    """What clients got in one round or more."""

    seconds: float = 0.0
    in_time: int = 0
    """Answers that came within those seconds."""
    times: list[float] = field(default_factory=list)
    """Seconds that each answer took, those before and after those seconds too."""

    def add(self, other: "Answers") -> None:
        """Another round of the same."""
        self.seconds, self.in_time = self.seconds + other.seconds, self.in_time + other.in_time
        self.times += other.times

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.in_time / self.seconds

    def milliseconds(self, percent: float) -> float:
        """A percentile of the times."""
        return 1000 * sorted(self.times)[min(len(self.times) - 1, int(len(self.times) * percent / 100))]


def fill(data_dir: Path) -> dict[str, int]:
    """Put a trained experiment of each case into a new lab's data directory, as a worker leaves it."""
    settings = Settings(data_dir=data_dir)
    store = Store(settings)
    store.migrate()
    numbers = {}
    for case in CASES:
        about = described(case)
        with store.writing() as session:
            row = experiments.create(session, spec_of(case), layers=[], warnings=[])
            claim = runs.claim(session, row.id, "benchmark", 1)
        assert claim is not None
        weights = weights_of(case, {"epochal": json.dumps(about)})
        files = {
            "graph.onnx": (ArtifactKind.GRAPH, export_described(about)),
            "weights-best.safetensors": (ArtifactKind.WEIGHTS_BEST, weights),
        }
        for name, (kind, content) in files.items():
            place = f"{row.id}/attempt-1/{name}"
            path = settings.experiments_dir / place
            write(path, content)
            with store.writing() as session:
                artifacts.record(session, claim, kind, 0, place, sha256_of(path), len(content))
        with store.writing() as session:
            runs.settle(session, claim, Status.COMPLETED)
        numbers[case] = row.id
    store.dispose()
    return numbers


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this benchmark's own, ended with the block.

    It has a session of its own, as the lab's parts have: Linux shares a busy machine between sessions, and a server in
    the clients' session would gain by it.
    """
    started = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield started
    finally:
        _signal(started.pid, signal.SIGCONT)
        started.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            started.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)  # LitServe leaves its workers behind


@contextmanager
def running(pid: int) -> Iterator[None]:
    """Let a server and all that it started run for the block, and stop them at its end.

    A server that waits is not idle: LitServe's processes take 0.45 of a core to look for work.
    """
    _signal(pid, signal.SIGCONT)
    time.sleep(SETTLE_SECONDS)
    try:
        yield
    finally:
        _signal(pid, signal.SIGSTOP)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(pid)
        for one in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)


@dataclass(frozen=True)
class Lab:
    """A lab that runs."""

    url: str
    data_dir: Path
    numbers: dict[str, int]
    """Experiments by case."""
    pid: int

    def path(self, case: str) -> str:
        """Where a case's predictions are asked for."""
        return f"/api/v1/experiments/{self.numbers[case]}/predictions"

    def api(self) -> psutil.Process:
        """The API's process."""
        below = psutil.Process(self.pid).children(recursive=True)
        return next(one for one in below if "service.server" in one.cmdline())


@contextmanager
def lab(folder: Path, workers: int = 1) -> Iterator[Lab]:
    """A lab in a new folder, with a trained experiment of each case."""
    data_dir = folder / "lab"
    numbers = fill(data_dir)
    command = ("-m", "epochal", "up", "--port", "0", "--data-dir", str(data_dir), "--workers", str(workers))
    with process(sys.executable, *command) as started:
        url = address_of(data_dir / "lab.json")
        httpx.get(f"{url}/api/v1/architectures", timeout=120)  # answered when everything has been imported
        yield Lab(url, data_dir, numbers, started.pid)


def address_of(file: Path, key: str = "url") -> str:
    """The address that a server writes into a file when it listens."""
    return str(
        wait_until(lambda: file.is_file() and json.loads(file.read_text() or "{}").get(key), f"{key} in {file}", 120)
    )


def form_of(case: str) -> bytes:
    """A multipart body with the image of a case."""
    head = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    return head + pictures()[CASES[case][1]] + b"\r\n--cut--\r\n"


def warm_up(url: str, path: str, body: bytes) -> None:
    """Ask until the server answers, and then for a second."""
    deadline = time.monotonic() + 120
    while True:
        try:
            ask(url, path, body, 1, 0.01)
            break
        except (OSError, EOFError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    ask(url, path, body, 4, 1.0)


def ask(url: str, path: str, body: bytes, clients: int, seconds: float) -> Answers:
    """Ask by clients that each keep one connection open and send on when they have their answer.

    The seconds are counted from when each client has had its first answer: until then a server only takes requests in.
    One thread and no more than its sockets need: clients share the cores with what they measure, and each
    millisecond of theirs makes every server look slower, the fastest most.
    """
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: multipart/form-data; boundary=cut\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    found, num_unanswered, began = Answers(seconds), clients, inf
    with selectors.DefaultSelector() as waiting, ExitStack() as stack:
        for _ in range(clients):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            client = Client(connection, request)
            waiting.register(connection, selectors.EVENT_READ, client)
            client.send()
        while waiting.get_map():
            for key, _ in waiting.select():
                client = key.data
                if not client.is_answered():
                    continue
                now = time.perf_counter()
                found.times.append(now - client.began)
                found.in_time += began < now <= began + seconds
                if client.num_answers == 1 and not (num_unanswered := num_unanswered - 1):
                    began = now
                if now < began + seconds:
                    client.send()
                else:
                    waiting.unregister(client.connection)
    return found


class Client:
    """One connection with one request at a time, which is always the same."""

    def __init__(self, connection: socket.socket, request: bytes) -> None:
        self.connection = connection
        self.began = 0.0
        self.num_answers = 0
        self._request = request
        self._received = b""

    def send(self) -> None:
        """Send the request."""
        self._received, self.began = b"", time.perf_counter()
        self.connection.sendall(self._request)

    def is_answered(self) -> bool:
        """Read what has come; whether it completes the answer.

        Raises EOFError if the connection was closed, SystemExit for an answer that is no success.
        """
        data = self.connection.recv(65_536)
        if not data:
            raise EOFError("the connection was closed before the answer was complete")
        self._received += data
        head, end, content = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head) if end else None
        if length is None or len(content) < int(length[1]):
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"{head.decode()}\n{content[:300].decode()}")
        self.num_answers += 1
        return True
