"""`python -m benchmarks.load`: a lab with years of experiments in it, under load, beside the bars it has to clear.

--minutes M      how long the lab is under load (2; 10 for the full form)
--json           the figures as JSON on standard output
--write          put them into docs/benchmarks.md
--experiments N, --epochs N     how full the store is (10,000 of 100 epochs)

The store is filled in bulk; then the real API answers, one request at a time: lists by every sort, filtered and deep,
metrics of single experiments, curves never drawn before. Then a worker trains, by turns undisturbed (the API's process
is stopped) and beside 100 open event streams and 50 requests a second, and the API's memory is watched while they last.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.faults.report import machine
from benchmarks.faults.waiting import wait_until
from benchmarks.requests import Traffic
from benchmarks.rows import put_between
from benchmarks.seeding import seed_store
from models.data.dataset import load_dataset
from models.settings import Settings
from models.store import Store
from models.store.sqlite import dbapi
from service.lab.lab import Lab

API = "/api/v1"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- load: begin -->", "<!-- load: end -->"

NUM_STREAMS, REQUESTS_PER_SECOND = 100, 50.0
UNDISTURBED_SECONDS = 5.0
TURNS = 24
"""Spells of load. Training is watched undisturbed before and after each, and the turns are many: a virtual machine's
speed moves by a tenth and more within a minute."""
BATCH_SIZE = 128
SPEC = {"model": "baseline", "dataset": "cifar10", "batch_size": BATCH_SIZE, "epochs": 10_000}


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured, beside the bar that it has to stay under."""

    what: str
    value: float
    bar: float
    unit: str
    detail: str

    @property
    def holds(self) -> bool:
        return self.value < self.bar


def main() -> int:
    """Measure and print; exits with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the lab is under load")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {PAGE.name}")
    parser.add_argument("--experiments", type=int, default=10_000, help="experiments in the store")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of each")
    options = parser.parse_args()
    load_dataset("cifar10", Settings())
    with tempfile.TemporaryDirectory(prefix="load-", dir="/tmp") as folder:
        figures = measure(Path(folder), options.experiments, options.epochs, options.minutes * 60)
    if options.json:
        print(json.dumps([{**asdict(figure), "holds": figure.holds} for figure in figures], indent=2))
    else:
        print_table(figures)
    if options.write:
        write_table(PAGE, figures, options.experiments, options.epochs)
    return 0 if all(figure.holds for figure in figures) else 1


def measure(folder: Path, num_experiments: int, num_epochs: int, seconds: float) -> list[Figure]:
    """Fill a store, start a lab on it, and take every figure."""
    settings = Settings(data_dir=folder / "data", port=0, workers=1, device="cpu", api_key=None)
    store = Store(settings)
    store.migrate()
    seed_store(store, num_experiments, num_epochs, lambda done: say(f"seeded {done:,} of {num_experiments:,}", done))
    store.dispose()
    with Lab(settings, say=say) as lab, httpx.Client(base_url=lab.url, timeout=60, trust_env=False) as client:
        figures = [
            measure_lists(client),
            measure_metrics(client, num_experiments),
            measure_curves(client, num_experiments),
        ]
        return [*figures, *measure_under_load(lab, client, num_experiments, seconds)]


# One request at a time


def measure_lists(client: httpx.Client) -> Figure:
    """GET /experiments: every sort, filters, and pages far behind the first."""
    queries: list[dict[str, Any]] = [
        {}, {"sort": "name"}, {"sort": "id", "order": "asc"}, {"sort": "val_accuracy.best"}, {"sort": "val_loss.best"},
        {"sort": "val_loss.last", "order": "desc"}, {"sort": "images_per_second.best"}, {"status": "completed"},
        {"status": "failed"}, {"model": "baseline"}, {"dataset": "fashion-mnist"}, {"tag": "week-3"},
        {"tag": "favourite"}, {"tag": "all"}, {"status": "diverged", "sort": "val_accuracy.best"},
        {"model": "wide", "sort": "val_loss.last"}, {"tag": "all", "sort": "val_accuracy.best"},
        {"tag": "favourite", "sort": "val_loss.best"}, {"limit": 200},
    ]  # fmt: skip
    times: dict[str, list[float]] = {}
    for query in queries:
        name = "&".join(f"{key}={value}" for key, value in query.items()) or "newest"
        times[name] = [timed(client, "/experiments", query)[0] for _ in range(12)][2:]
        say(f"list {name}: {percentile(times[name], 50):.1f} ms")
    for query in ({}, {"sort": "val_accuracy.best"}, {"tag": "all", "sort": "val_loss.best"}):
        name = "deep pages of " + ("&".join(query.values()) or "newest")
        times[name] = _deep_pages(client, query)
        say(f"list {name}: {percentile(times[name], 50):.1f} ms")
    every = [one for values in times.values() for one in values]
    slowest = max(times, key=lambda name: percentile(times[name], 95))
    detail = (
        f"median {percentile(every, 50):.1f} ms over {len(every)} requests of {len(times)} kinds; "
        f"slowest kind: {slowest}, p95 {percentile(times[slowest], 95):.1f} ms"
    )
    return Figure("GET /experiments, p95", percentile(every, 95), 50, "ms", detail)


def _deep_pages(client: httpx.Client, query: dict[str, str]) -> list[float]:
    """The times of the later half of the first 120 pages, cursor by cursor."""
    times: list[float] = []
    cursor = None
    while len(times) < 120:
        milliseconds, document = timed(client, "/experiments", {**query, **({"cursor": cursor} if cursor else {})})
        times.append(milliseconds)
        if (cursor := document["next"]) is None:
            break
    return times[len(times) // 2 :]


def measure_metrics(client: httpx.Client, num_experiments: int) -> Figure:
    """GET /experiments/{id}/metrics of experiments picked at random."""
    picks = random.Random(1).choices(range(1, num_experiments + 1), k=205)
    times = [timed(client, f"/experiments/{pick}/metrics")[0] for pick in picks][5:]
    detail = f"median {percentile(times, 50):.1f} ms over {len(times)} experiments"
    return Figure("one experiment's metrics, p95", percentile(times, 95), 30, "ms", detail)


def measure_curves(client: httpx.Client, num_experiments: int) -> Figure:
    """GET /experiments/{id}/curves.png, each of an experiment that was not drawn before."""
    picks = random.Random(2).sample(range(1, num_experiments + 1), k=min(num_experiments, 42))
    times = [timed(client, f"/experiments/{pick}/curves.png")[0] for pick in picks][2:]
    detail = f"median {percentile(times, 50):.0f} ms over {len(times)} experiments, none drawn before"
    return Figure("curves.png, p95", percentile(times, 95), 400, "ms", detail)


def timed(client: httpx.Client, path: str, params: dict[str, Any] | None = None) -> tuple[float, Any]:
    """Milliseconds until the whole answer is there, and its JSON."""
    began = time.perf_counter()
    response = client.get(f"{API}{path}", params=params)
    milliseconds = (time.perf_counter() - began) * 1000
    response.raise_for_status()
    return milliseconds, response.json() if "json" in response.headers["content-type"] else None


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100) - 1))]


# Everything at once


def measure_under_load(lab: Lab, client: httpx.Client, num_experiments: int, seconds: float) -> list[Figure]:
    """Train by turns undisturbed and under load, which lasts `seconds` in all."""
    store = Store(lab.settings)
    number = int(client.post(f"{API}/experiments", json=SPEC).raise_for_status().json()["id"])
    assert lab.api is not None
    assert lab.api.pid is not None
    memory = Memory(lab.api.pid)
    traffic = Traffic(lab.url, number, num_experiments, NUM_STREAMS, REQUESTS_PER_SECOND)
    try:
        training = Training(store, number)
        wait_until(lambda: training.place() > (1, 0), "the first epoch", 180)
        slowdowns = []
        with traffic:
            its_cores, traffic_cores = Cores(lab.api.pid), Cores(traffic.pid)
            before = undisturbed(training, memory.process)
            for turn in range(TURNS):
                with traffic.asking(), memory, its_cores, traffic_cores:
                    beside = training.speed(seconds / TURNS)
                after = undisturbed(training, memory.process)
                slowdowns.append(100 * (1 - beside / statistics.mean((before, after))))
                say(
                    f"turn {turn + 1} of {TURNS}: {beside:,.0f} images/s under load, {before:,.0f} before and "
                    f"{after:,.0f} after it ({slowdowns[-1]:+.1f}%)"
                )
                before = after
    finally:
        client.post(f"{API}/experiments/{number}/cancel")
        store.dispose()
    if traffic.errors:
        raise SystemExit(f"{len(traffic.errors)} requests under load failed: {traffic.errors[0]}")
    slowdown = statistics.median(slowdowns)
    said = (
        f"{slowdown:.1f}% together with the traffic, of which the API's part is counted: it took "
        f"{its_cores.percent:.1f}% of a core, the traffic's process {traffic_cores.percent:.1f}%; "
        f"{traffic.num_streams} streams took {traffic.num_messages:,} messages; "
        f"{traffic.requests_per_second:.0f} requests/s, p95 {percentile(traffic.milliseconds, 95):.0f} ms; "
        f"half of {TURNS} turns between {percentile(slowdowns, 25):+.1f}% and {percentile(slowdowns, 75):+.1f}%"
    )
    part = its_cores.percent / (its_cores.percent + traffic_cores.percent)
    return [
        Figure("training slowed by streams and requests", part * slowdown, 10, "%", said),
        Figure("streams that were cut off", float(NUM_STREAMS - traffic.num_streams), 1, "", "of 100 open at once"),
        memory.figure(seconds),
    ]


def undisturbed(training: "Training", api: psutil.Process) -> float:
    """The speed of training while the API does nothing at all. Its streams stay open."""
    api.suspend()
    try:
        return training.speed(UNDISTURBED_SECONDS)
    finally:
        api.resume()


class Training:
    """How far an experiment is, read from the database fifty times a second, in some ten microseconds each."""

    def __init__(self, store: Store, number: int) -> None:
        self._connection = dbapi.connect(str(store.url.database), timeout=30, isolation_level=None)
        self._number = number

    def place(self) -> tuple[int, int]:
        """Epoch and step; 0 while it does not train."""
        query = "SELECT progress FROM experiments WHERE id = ?"
        progress = json.loads(self._connection.execute(query, (self._number,)).fetchone()[0] or "{}")
        return (progress["epoch"], progress["step"]) if progress.get("phase") == "training" else (0, 0)

    def speed(self, seconds: float) -> float:
        """Images per second over the next so many seconds, from report to report within an epoch."""
        deadline, steps, took = time.monotonic() + seconds, 0, 0.0
        last, since = self._next_report()
        while since < deadline or not took:
            place, now = self._next_report()
            if place[0] == last[0] and last[1] > 0:
                steps, took = steps + place[1] - last[1], took + now - since
            last, since = place, now
        return steps * BATCH_SIZE / took

    def _next_report(self) -> tuple[tuple[int, int], float]:
        """The next place that is reported, and when."""
        before = self.place()
        while (place := self.place()) == before:
            time.sleep(0.02)
        return place, time.monotonic()


class Cores:
    """The processor time of a process while `with` blocks run."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._busy = self._passed = 0.0

    @property
    def percent(self) -> float:
        """Of one core."""
        return 100 * self._busy / self._passed

    def __enter__(self) -> None:
        self._busy_before, self._began = self._read(), time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._busy += self._read() - self._busy_before
        self._passed += time.monotonic() - self._began

    def _read(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class Memory:
    """A process's memory while `with` blocks run, twice a second."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self._stop = threading.Event()
        self.megabytes: list[float] = []

    def __enter__(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.megabytes.append(self.process.memory_info().rss / 1e6)

    def figure(self, seconds: float) -> Figure:
        """What it grew by from the first fifth, in which caches fill, to the last."""
        fifth = max(1, len(self.megabytes) // 5)
        before, after = statistics.median(self.megabytes[fifth : 2 * fifth]), statistics.median(self.megabytes[-fifth:])
        detail = (
            f"{before:.0f} MB in the second fifth, {after:.0f} MB in the last, at most {max(self.megabytes):.0f} MB"
        )
        return Figure(f"API memory, growth over {seconds / 60:.1f} min of load", after - before, 10, "MB", detail)


# The table


def say(text: str, count: int = 0) -> None:
    """Print a progress line; of those with a count every tenth."""
    if count % 2000 == 0:
        print(text, file=sys.stderr, flush=True)


def print_table(figures: list[Figure]) -> None:
    """Print figures beside their bars."""
    table = Table()
    for name in ("", "measured", "bar", "verdict", "how"):
        table.add_column(name, justify="right" if name in ("measured", "bar") else "left")
    for figure in figures:
        verdict = "holds" if figure.holds else "[red]missed[/]"
        table.add_row(
            figure.what, _with_unit(figure.value, figure), f"< {_with_unit(figure.bar, figure)}", verdict, figure.detail
        )
    Console().print(table)


def write_table(page: Path, figures: list[Figure], num_experiments: int, num_epochs: int) -> None:
    """Put the figures between the marks."""
    rows = [
        f"| {figure.what} | {_with_unit(figure.value, figure)} | < {_with_unit(figure.bar, figure)} | "
        f"{'holds' if figure.holds else 'missed'} | {figure.detail} |"
        for figure in figures
    ]
    busy = os.getloadavg()[1] if hasattr(os, "getloadavg") else 0.0
    said = (
        f"{time.strftime('%d %B %Y')}, {machine()}; {num_experiments:,} experiments of {num_epochs} epochs; "
        f"load average {busy:.1f} at the end."
    )
    lines = [said, "", "| | measured | bar | verdict | how |", "|---|---|---|---|---|", *rows]
    put_between(page, BEGIN, END, "\n".join(lines))


def _with_unit(value: float, figure: Figure) -> str:
    return f"{value:.3g} {figure.unit}".strip()


if __name__ == "__main__":
    sys.exit(main())
