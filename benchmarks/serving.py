"""Predictions a second, and how long one takes: this lab beside a plain endpoint and what the machine could do.

    make bench-serving                  .venv/bin/python -m benchmarks.serving [--quick] [--json]

Closed loop: each of 1, 8 or 64 clients sends its next upload when it has the answer to its last one. The lab is what
`epochal up` starts; the rival is FastAPI with torch in an endpoint of fifteen lines (benchmarks/serving_rival.py); both
run at once and are asked in turn, in short rounds, so that what else the machine does meets both. The ceiling decodes
and predicts on all cores without HTTP. Networks have random weights: how long one takes does not depend on them.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.serving_rival import build
from models.cores import usable_cores
from models.data.catalogue import get_dataset
from models.data.decoding import decode_image, open_image
from models.files import sha256_of, write
from models.networks.export import export_described
from models.networks.inputs import preprocessing_for
from models.networks.preprocessing import Preprocessing
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Store, artifacts, experiments, runs
from models.store.states import ArtifactKind, Status
from service.predictions.session import compute_logits, start_session

CASES = {
    "baseline": ("baseline", "png"),
    "three_blocks_batch_norm": ("three_blocks_batch_norm", "png"),
    "squeezenet1_1 at 224": ({"name": "squeezenet1_1", "input_size": 224}, "jpeg"),
}
CLIENTS = (1, 8, 64)


def pictures() -> dict[str, bytes]:
    """A PNG of 32 x 32 and a JPEG of 640 x 480, of smooth noise, which compresses as photos do."""
    random = np.random.default_rng(0)
    found = {}
    for name, size, file_format in (("png", (32, 32), "PNG"), ("jpeg", (640, 480), "JPEG")):
        small = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        out = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(out, file_format)
        found[name] = out.getvalue()
    return found


def fill(data_dir: Path) -> dict[str, int]:
    """Put a trained experiment of each case into a new lab's data directory, as a worker leaves it."""
    settings = Settings(data_dir=data_dir)
    store = Store(settings)
    store.migrate()
    numbers = {}
    for case, (model, _) in CASES.items():
        spec = parse_spec({"model": model})
        preprocessing = preprocessing_for(spec, get_dataset("cifar10"))
        about = {"model": spec.model.model_dump(mode="json"), "preprocessing": preprocessing.to_json(), "epoch": 1}
        with store.writing() as session:
            row = experiments.create(session, spec, layers=[], warnings=[])
            claim = runs.claim(session, row.id, "benchmark", 1)
        assert claim is not None
        network = build(spec.model, preprocessing)
        files = {
            "graph.onnx": (ArtifactKind.GRAPH, export_described(about)),
            "weights-best.safetensors": (
                ArtifactKind.WEIGHTS_BEST,
                save(dict(network.state_dict()), {"epochal": json.dumps(about)}),
            ),
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
    """A process of this benchmark's own, ended with the block."""
    started = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(30)


def address_of(file: Path, key: str = "url") -> str:
    """The address that a server writes into a file when it listens."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if file.is_file() and (url := json.loads(file.read_text() or "{}").get(key)):
            return str(url)
        time.sleep(0.2)
    raise SystemExit(f"{file} did not appear within two minutes")


async def ask(url: str, path: str, body: bytes, clients: int, seconds: float) -> list[float]:
    """Seconds of each answer that came within the time, by clients that each keep one connection open."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: multipart/form-data; boundary=cut\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    until, found = time.perf_counter() + seconds, list[float]()

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while (began := time.perf_counter()) < until:
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            status, headers = answer.split(b"\r\n", 1)
            length = next(
                int(line[15:]) for line in headers.split(b"\r\n") if line.lower().startswith(b"content-length:")
            )
            content = await reader.readexactly(length)
            if b" 200 " not in status:
                raise SystemExit(f"{url}{path}: {status.decode()} {content[:300].decode()}")
            found.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


def form(picture: bytes) -> bytes:
    """A multipart body with one image."""
    head = b'--cut\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    return head + picture + b"\r\n--cut--\r\n"


def ceiling(model: Any, picture: bytes, seconds: float) -> float:
    """Images a second that all cores decode and predict, without HTTP."""
    spec = parse_spec({"model": model})
    preprocessing: Preprocessing = preprocessing_for(spec, get_dataset("cifar10"))
    about = {"model": spec.model.model_dump(mode="json"), "preprocessing": preprocessing.to_json()}
    session = start_session(export_described(about), save(dict(build(spec.model, preprocessing).state_dict())))
    until = time.perf_counter() + seconds

    def work(_: int) -> int:
        count = 0
        while time.perf_counter() < until:
            compute_logits(session, [decode_image(open_image(picture), preprocessing)])
            count += 1
        return count

    cores = usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(work, range(cores))) / seconds


def measure(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each case and number of clients."""
    images, rows = pictures(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        data_dir, told = Path(folder) / "lab", Path(folder) / "rival.json"
        numbers = fill(data_dir)
        lab = ("-m", "epochal", "up", "--port", "0", "--data-dir", str(data_dir), "--workers", "1")
        with (
            process(sys.executable, *lab),
            process(sys.executable, "-m", "benchmarks.serving_rival", str(told), OMP_NUM_THREADS="1"),
        ):
            ours, rival = address_of(data_dir / "lab.json"), address_of(told)
            for case, (model, kind) in CASES.items():
                body = form(images[kind])
                places = {
                    "epochal": (ours, f"/api/v1/experiments/{numbers[case]}/predictions"),
                    "fastapi": (rival, f"/predict/{list(CASES).index(case)}"),
                }
                for url, path in places.values():
                    asyncio.run(ask(url, path, body, 4, 1.0))
                most = ceiling(model, images[kind], seconds)
                for clients in CLIENTS:
                    times: dict[str, list[float]] = {name: [] for name in places}
                    for _ in range(rounds):
                        for name, (url, path) in places.items():
                            times[name] += asyncio.run(ask(url, path, body, clients, seconds))
                    row: dict[str, Any] = {"case": case, "clients": clients, "ceiling": round(most, 1)}
                    for name, found in times.items():
                        cuts = statistics.quantiles(found, n=100)
                        row[name] = {
                            "per_second": round(len(found) / (rounds * seconds), 1),
                            "p50_ms": round(1000 * statistics.median(found), 2),
                            "p99_ms": round(1000 * cuts[98], 2),
                        }
                    row["times_the_rival"] = round(row["epochal"]["per_second"] / row["fastapi"]["per_second"], 2)
                    rows.append(row)
                    print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def cpu_name() -> str:
    """The processor as the system names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | clients | Epochal, requests/s (p50, p99 ms) | plain FastAPI and torch | times | ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = ["{per_second:g} ({p50_ms:g}, {p99_ms:g})".format(**row[name]) for name in ("epochal", "fastapi")]
        lines.append(
            f"| {row['case']} | {row['clients']} | {cells[0]} | {cells[1]} | {row['times_the_rival']:g} "
            f"| {row['ceiling']:g} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter rounds: under six minutes")
    parser.add_argument("--json", action="store_true", help="rows as JSON in place of a table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(rounds=2 if arguments.quick else 6, seconds=3.0 if arguments.quick else 5.0)
    if arguments.json:
        print(json.dumps({"cpu": cpu_name(), "cores": usable_cores(), "rows": rows}, indent=1))
    else:
        print(f"{cpu_name()}, {usable_cores()} cores\n\n{table(rows)}")


if __name__ == "__main__":
    main()
