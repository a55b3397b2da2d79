"""Training speed beside other load on the cores, and sharing between several runs and the API.

    python -m benchmarks.sharing                 the table, about nine minutes
    python -m benchmarks.sharing --quick --json  one round of each, as JSON and nothing else
    python -m benchmarks.sharing --write         put the table into docs/benchmarks.md

Three parts, each of which can be asked for alone (--part):

    beside    `baseline` alone, beside one busy process a core, and beside two
    runs      three runs at once against one alone, each a process as in three workers or labs
    lab       three experiments in a lab of three workers against one of them, and the API's answers meanwhile

Each is measured as the engine is (`chosen`: it chooses its threads), and with as many threads as cores, whatever else
runs (`fixed`: what the engine did before it chose). Rounds of all cases follow each other, so that ratios are of one
hour and one machine.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from worker.training.threads import START, ThreadHistory, limit_spinning

limit_spinning()  # before torch is imported, as the worker does

from benchmarks.rows import put_between
from models.cores import usable_cores
from models.data.dataset import load_dataset
from models.settings import Settings, get_settings
from models.spec.parse import parse_spec
from worker.training.engine import train
from worker.training.neighbours import Neighbours
from worker.training.sink import MemorySink
from worker.training.thread_control import ThreadControl

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- sharing: begin -->", "<!-- sharing: end -->"
BATCH_SIZES = (32, 128)
SECONDS, SETTLING_SECONDS = 5.0, 3.0
"""A run is timed for the first of these, after the second: threads are chosen and neighbours noticed meanwhile."""
READY = "ready"


@dataclass(frozen=True)
class Figure:
    """A ratio or a time, its bar, and how it came about."""

    what: str
    value: float
    bar: float
    at_most: bool
    detail: str

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        return self.value < self.bar if self.at_most else self.value >= self.bar


# One run


def one_run(batch_size: int, fixed_threads: int | None, seconds: float) -> float:
    """Images per second of `baseline` on all of CIFAR-10 in this process; it begins when its standard input ends."""
    dataset = load_dataset("cifar10", get_settings(), lambda label, done, total: None)
    spec = parse_spec({"model": "baseline", "batch_size": batch_size, "epochs": 500})
    steps, began, images = 0, 0.0, 0
    print(READY, flush=True)
    sys.stdin.read()
    started = time.perf_counter()

    def should_stop() -> Literal["cancel"] | None:
        nonlocal steps, began, images
        now = time.perf_counter()
        if not began and now - started >= SETTLING_SECONDS and steps >= 10:
            began, images = now, 0
        steps, images = steps + 1, images + batch_size
        return "cancel" if began and now - began >= seconds else None

    replay = None if fixed_threads is None else ThreadHistory(((START, fixed_threads),))
    with tempfile.TemporaryDirectory() as folder:
        thread_control = ThreadControl(Neighbours(), replay=replay)
        train(
            spec,
            dataset,
            MemorySink(),
            Path(folder),
            device="cpu",
            should_stop=should_stop,
            thread_control=thread_control,
        )
    return images / (time.perf_counter() - began)


def runs_at_once(count: int, batch_size: int, fixed_threads: int | None, seconds: float) -> float:
    """Images per second of so many runs together. None begins before all have imported torch."""
    command = [sys.executable, "-m", "benchmarks.sharing", "--one-run", str(batch_size), "--seconds", str(seconds)]
    command += [] if fixed_threads is None else ["--fixed-threads", str(fixed_threads)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        runs = [stack.enter_context(subprocess.Popen(command, start_new_session=True, **pipes)) for _ in range(count)]
        for run in runs:
            assert run.stdout is not None
            if run.stdout.readline().strip() != READY:
                raise SystemExit("a run could not be started")
        for run in runs:
            assert run.stdin is not None
            run.stdin.close()
        return sum(float(json.loads(run.stdout.readline())) for run in runs if run.stdout)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Start processes that each use a core."""
    command = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


# The parts


def measure_beside(rounds: int, seconds: float) -> list[Figure]:
    """A run alone and beside busy processes, against itself and against fixed threads."""
    cores = usable_cores()
    speeds: dict[tuple[int, int, str], list[float]] = {}
    for _ in range(rounds):
        for batch_size in BATCH_SIZES:
            for hogs in (0, 1, 2):
                for kind, fixed in (("chosen", None), ("fixed", cores)):
                    with busy(hogs * cores):
                        speed = runs_at_once(1, batch_size, fixed, seconds)
                    speeds.setdefault((batch_size, hogs, kind), []).append(speed)
                    say(f"batch {batch_size}, {hogs} busy a core, {kind} threads: {speed:,.0f} images/s")
    found = {key: statistics.median(values) for key, values in speeds.items()}
    figures: list[Figure] = []
    for size in BATCH_SIZES:
        idle, before = found[size, 0, "chosen"], found[size, 0, "fixed"]
        figures.append(
            Figure(f"batch {size}, idle, of fixed threads", idle / before, 0.92, False, f"{idle:,.0f} / {before:,.0f}")
        )
        for hogs, name, bar in ((1, "one", 0.35), (2, "two", 0.2)):
            beside, with_fixed = found[size, hogs, "chosen"], found[size, hogs, "fixed"]
            then = f"with fixed threads {with_fixed:,.0f} / {before:,.0f} = {with_fixed / before:.2f}"
            detail = f"{beside:,.0f} / {idle:,.0f}; {then}"
            figures.append(
                Figure(f"batch {size}, beside {name} busy a core, of idle", beside / idle, bar, False, detail)
            )
    return figures


def measure_runs(rounds: int, seconds: float) -> list[Figure]:
    """Three runs together against one alone."""
    cores = usable_cores()
    figures: list[Figure] = []
    for size in BATCH_SIZES:
        speeds: dict[str, list[float]] = {"one": [], "chosen": [], "fixed": []}
        for _ in range(rounds):
            for kind, count, fixed in (("one", 1, None), ("chosen", 3, None), ("fixed", 3, cores)):
                speeds[kind].append(runs_at_once(count, size, fixed, seconds))
                say(f"batch {size}, {count} at once, {kind}: {speeds[kind][-1]:,.0f} images/s")
        one, three, fixed_three = (statistics.median(values) for values in speeds.values())
        detail = f"{three:,.0f} / {one:,.0f}; with fixed threads {fixed_three:,.0f}"
        figures.append(Figure(f"batch {size}, three at once, of one alone", three / one, 0.8, False, detail))
    return figures


def measure_lab(seconds: float) -> list[Figure]:
    """Three experiments in three workers against the first of them alone, and answers meanwhile."""
    import httpx

    from service.lab.lab import Lab

    spec = {"model": "baseline", "batch_size": 128, "epochs": 500}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), port=0, workers=3, cache_dir=get_settings().cache_dir, device="cpu")
        with Lab(settings) as lab, httpx.Client(base_url=f"{lab.url}/api/v1", timeout=60) as client:
            numbers = [_submit(client, spec)]
            alone, _ = _watch(client, numbers, 2 * seconds)
            numbers += [_submit(client, spec), _submit(client, spec)]
            together, milliseconds = _watch(client, numbers, 2 * seconds)
            for number in numbers:
                client.post(f"/experiments/{number}/cancel").raise_for_status()
    p95 = sorted(milliseconds)[int(0.95 * (len(milliseconds) - 1))]
    say(f"lab: {alone:,.0f} images/s alone, {together:,.0f} together, p95 {p95:.0f} ms")
    return [
        Figure("lab, three workers, of one", together / alone, 0.8, False, f"{together:,.0f} / {alone:,.0f}"),
        Figure("lab, the API's p95 meanwhile, ms", p95, 100.0, True, f"{len(milliseconds)} requests"),
    ]


def _submit(client: Any, spec: dict[str, Any]) -> int:
    """An experiment that has begun to train and has settled."""
    number = int(client.post("/experiments", json=spec).raise_for_status().json()["id"])
    while (_place(client, number) or (1, 0)) == (1, 0):
        time.sleep(0.1)
    time.sleep(SETTLING_SECONDS)
    return number


def _place(client: Any, number: int) -> tuple[int, int] | None:
    """Epoch and step; None while it does not train."""
    progress = client.get(f"/experiments/{number}").raise_for_status().json().get("progress") or {}
    return (progress["epoch"], progress["step"]) if progress.get("phase") == "training" else None


def _watch(client: Any, numbers: list[int], seconds: float) -> tuple[float, list[float]]:
    """Images per second of all these experiments while they train, and milliseconds of requests twenty times a second.

    Steps are counted from report to report within an epoch.
    """
    steps, took, milliseconds = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0.0), []
    last: dict[int, tuple[tuple[int, int], float] | None] = dict.fromkeys(numbers)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for number in numbers:
            began = time.monotonic()
            place = _place(client, number)
            now = time.monotonic()
            milliseconds.append(1000 * (now - began))
            before = last[number]
            if place is None or (before and before[0] == place):
                continue
            if before and before[0][0] == place[0]:
                steps[number] += place[1] - before[0][1]
                took[number] += now - before[1]
            last[number] = (place, now)
        began = time.monotonic()
        client.get("/experiments").raise_for_status()
        milliseconds.append(1000 * (time.monotonic() - began))
        time.sleep(0.05)
    return sum(128 * steps[number] / took[number] for number in numbers if took[number]), milliseconds


# The table


def say(text: str) -> None:
    """Print a progress line."""
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """The processor and what it can do."""
    name, flags = platform.processor() or platform.machine(), ""
    if Path("/proc/cpuinfo").exists():
        known = dict(
            line.split(":", 1)
            for line in Path("/proc/cpuinfo").read_text().replace("\t", "").splitlines()
            if ":" in line
        )
        name, flags = known.get("model name", name).strip(), known.get("flags", "")
    vectors = next((label for flag, label in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "no AVX2")
    return f"{usable_cores()} cores of {name} ({vectors})"


def as_table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = ["| | measured | bar | verdict | images a second |", "|---|---|---|---|---|"]
    for figure in figures:
        bar = f"{'<' if figure.at_most else '>='} {figure.bar:g}"
        verdict = "holds" if figure.holds else "missed"
        rows.append(f"| {figure.what} | {figure.value:.3g} | {bar} | {verdict} | {figure.detail} |")
    return "\n".join(rows)


def write(page: Path, figures: list[Figure]) -> None:
    """Put the table between its marks in the page."""
    busy_with = f"load average {os.getloadavg()[2]:.1f} over the last quarter of an hour"
    said = f"{time.strftime('%d %B %Y')}, {machine()}, torch {_torch_version()}; {busy_with}."
    put_between(page, BEGIN, END, f"{said}\n\n{as_table(figures)}")


def _torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


def main() -> int:
    """Measure, or be one of the measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="one round of each: about four minutes")
    parser.add_argument("--rounds", type=int, help="rounds of each (3, or 1 with --quick)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each run is timed")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--one-run", type=int, metavar="BATCH", help=argparse.SUPPRESS)
    parser.add_argument("--fixed-threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_run:
        print(json.dumps(one_run(options.one_run, options.fixed_threads, options.seconds)))
        return 0
    rounds = options.rounds or (1 if options.quick else 3)
    figures: list[Figure] = []
    for part in options.part or PARTS:
        figures += measure_lab(options.seconds) if part == "lab" else PARTS[part](rounds, options.seconds)
    if options.write:
        write(PAGE, figures)
    if options.json:
        print(json.dumps({"machine": machine(), "figures": [asdict(each) | {"holds": each.holds} for each in figures]}))
    else:
        print(machine(), as_table(figures), sep="\n\n")
    return 0 if all(figure.holds for figure in figures) else 1


PARTS: dict[str, Any] = {"beside": measure_beside, "runs": measure_runs, "lab": measure_lab}

if __name__ == "__main__":
    sys.exit(main())
