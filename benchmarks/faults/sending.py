"""Sending of raw bytes, a thousand requests at once, and images to predict."""

import asyncio
import json
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import func, select

from benchmarks.faults.harness import API, Bench, expect
from models.store import Status
from models.store.tables import Base, Event, Experiment, Measurement, Run

JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "application/yaml"}


@dataclass(frozen=True)
class Answer:
    """An answer read from a bare socket."""

    status: int
    head: bytes
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)


def parse_answer(data: bytes) -> Answer:
    """The first answer in what a server sent; status 0 where it sent none."""
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        return Answer(0, head, b"")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(int(lines[0].split(" ")[1]), head, body, headers)


def address_of(bench: Bench) -> tuple[str, int]:
    host, _, port = bench.lab.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def connect(bench: Bench, timeout: float = 60.0) -> socket.socket:
    """A connection to the lab and nothing sent yet."""
    return socket.create_connection(address_of(bench), timeout=timeout)


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = bytearray()
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return bytes(received)


def raw(bench: Bench, data: bytes, what: str) -> Answer:
    """Send bytes as they are, and read the answer."""
    with connect(bench) as connection:
        with suppress(ConnectionError):  # it may have answered and hung up already
            connection.sendall(data)
        answer = parse_answer(read_all(connection))
    bench.client.record(what, answer.status)
    return answer


def get_raw(bench: Bench, target: str, method: str = "GET") -> Answer:
    """GET a path exactly as it is written, which HTTP clients would normalise."""
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    return raw(bench, head.encode("utf-8"), f"{method} {target[:60]}")


def request_bytes(bench: Bench, method: str, path: str, **kwargs: Any) -> bytes:
    """A whole request as bytes, with `Connection: close` and without compression."""
    request = bench.client.http.build_request(method, path, **kwargs)
    request.headers.update({"Connection": "close", "Accept-Encoding": "identity"})
    content = request.read()
    lines = [f"{method} {request.url.raw_path.decode()} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def at_once(bench: Bench, requests: Sequence[bytes], what: str) -> list[Answer]:
    """Send all requests at the same time, each over a connection of its own; the answers in the same order."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(requests) + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    async def one(data: bytes) -> Answer:
        reader, writer = await asyncio.open_connection(*address_of(bench))
        try:
            writer.write(data)
            await writer.drain()
            return parse_answer(await reader.read())
        finally:
            writer.close()

    async def everything() -> list[Answer]:
        async with asyncio.timeout(300):
            return await asyncio.gather(*(one(data) for data in requests))

    answers = asyncio.run(everything())
    for answer in answers:
        bench.client.record(what, answer.status)
    return answers


def side_by_side(*actions: Callable[[], str]) -> list[str]:
    """Run functions in threads. Returns their results, or raises the first one's error."""
    found: list[str] = [""] * len(actions)
    errors: list[BaseException] = []

    def run(place: int) -> None:
        try:
            found[place] = actions[place]()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


class Peak:
    """The most memory that a process held while a `with` block ran, above what it held before."""

    def __init__(self, pid: int | None) -> None:
        assert pid is not None
        self._process = psutil.Process(pid)
        self._folder = Path(f"/proc/{pid}")
        self.growth_mb = 0.0

    def __enter__(self) -> "Peak":
        with suppress(OSError):  # elsewhere than on Linux what it holds afterwards has to do
            (self._folder / "clear_refs").write_text("5")
        self._before = self._process.memory_info().rss
        return self

    def __exit__(self, *_: object) -> None:
        most = self._process.memory_info().rss
        with suppress(OSError):
            line = next(line for line in (self._folder / "status").read_text().splitlines() if line[:6] == "VmHWM:")
            most = max(most, int(line.split()[1]) * 1024)
        self.growth_mb = (most - self._before) / 1e6


def api_peak(bench: Bench) -> Peak:
    """The API's."""
    assert bench.lab.api is not None
    return Peak(bench.lab.api.pid)


def trained(bench: Bench) -> int:
    """An experiment of this lab that has completed: one from before, or one trained now."""
    with bench.store.reading() as session:
        found = session.scalars(select(Experiment.id).where(Experiment.status == Status.COMPLETED)).first()
    if found is not None:
        return found
    experiment_id = bench.submit(epochs=2)
    bench.wait_for(experiment_id, Status.COMPLETED)
    return experiment_id


def predict(bench: Bench, experiment_id: int, images: Sequence[tuple[str, bytes]], query: str = "") -> httpx.Response:
    """Send images to be predicted."""
    files = [("image", (name, data)) for name, data in images]
    return bench.client.post(f"{API}/experiments/{experiment_id}/predictions?top_k=10{query}", files=files)


def labels_of(response: httpx.Response) -> list[dict[str, float]]:
    """Probabilities by label, an entry an image."""
    expect(response.status_code == 200, f"predictions were answered {response.status_code}: {response.text[:300]}")
    return [{top["label"]: top["probability"] for top in one["top"]} for one in response.json()["predictions"]]


def rows_of(bench: Bench) -> dict[str, int]:
    """How many rows each table has that only requests fill."""
    tables: tuple[type[Base], ...] = (Experiment, Run, Measurement, Event)
    with bench.store.reading() as session:
        return {table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def post_spec(bench: Bench, body: Any) -> httpx.Response:
    """POST a spec as it is: bytes are sent as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return bench.client.post(f"{API}/experiments", content=content, headers=JSON)
