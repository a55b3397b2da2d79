"""Parts of benchmarks.serving beside its table: predictions while a worker trains, a soak, a folder of images."""

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.faults.waiting import wait_until
from benchmarks.load import Training
from benchmarks.serving_ceiling import ceiling
from benchmarks.serving_lab import Answers, ask, form_of, lab, warm_up
from benchmarks.serving_networks import CASES, picture
from models.settings import Settings
from models.store import Store

CASE = "baseline"
SECONDS, TURNS = 10.0, 4
SOAK_CLIENTS, SOAK_SECONDS = 8, 2.0


def beside_training() -> dict[str, Any]:
    """p99 of eight clients beside a training, and the speed of the training beside them, of each alone."""
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as started:
        body, path = form_of(CASE), started.path(CASE)
        warm_up(started.url, path, body)
        idle = ask(started.url, path, body, 8, 2 * SECONDS)
        api = httpx.Client(base_url=f"{started.url}/api/v1", timeout=60)
        number = int(api.post("/experiments", json={"model": CASE, "epochs": 1000}).raise_for_status().json()["id"])
        store = Store(Settings(data_dir=started.data_dir))
        training = Training(store, number)
        wait_until(lambda: training.place() > (1, 0), "the first epoch", 180)
        alone, beside, busy = list[float](), list[float](), Answers()
        for _ in range(TURNS):
            alone.append(training.speed(SECONDS))
            process = subprocess.Popen([sys.executable, "-c", _ASK, started.url, path, str(SECONDS)], stdout=-1)
            time.sleep(0.5)
            beside.append(training.speed(SECONDS - 1))
            told, _ = process.communicate()
            in_time, *times = map(float, told.split())
            busy.add(Answers(SECONDS, int(in_time), times))
        api.post(f"/experiments/{number}/cancel")
        store.dispose()
    return {
        "idle": {"per_second": idle.per_second, "p50_ms": idle.milliseconds(50), "p99_ms": idle.milliseconds(99)},
        "beside": {"per_second": busy.per_second, "p50_ms": busy.milliseconds(50), "p99_ms": busy.milliseconds(99)},
        "p99_of_idle": busy.milliseconds(99) / idle.milliseconds(99),
        "images_per_second": {"alone": statistics.median(alone), "beside": statistics.median(beside)},
        "training_of_idle": statistics.median(one / other for one, other in zip(beside, alone, strict=True)),
    }


_ASK = f"""
import sys
from benchmarks.serving_lab import ask, form_of
found = ask(sys.argv[1], sys.argv[2], form_of({CASE!r}), 8, float(sys.argv[3]))
print(found.in_time, *found.times)
"""
"""Run by a process of its own, since the one that watches the training is busy with that."""


def soak(num_requests: int) -> dict[str, Any]:
    """The API's own memory over so many requests, from the thousandth on: MB that are no file's.

    Pages of libraries are left out: another process that ends makes them this one's own, and its memory would seem to
    grow.
    """
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as started:
        body, path, api = form_of(CASE), started.path(CASE), started.api()
        found, memory = Answers(), list[tuple[int, float]]()
        while len(found.times) < num_requests + 1000:
            found.add(ask(started.url, path, body, SOAK_CLIENTS, SOAK_SECONDS))
            if len(found.times) >= 1000:
                used = api.memory_full_info()
                memory.append((len(found.times), (used.rss - used.shared) / 1e6))
                unique = f"{used.uss / 1e6:.1f} MB with files that no other process maps"
                print(f"{memory[-1][0]:,} requests, {memory[-1][1]:.1f} MB, {unique}", file=sys.stderr, flush=True)
    return {
        "requests": len(found.times),
        "per_second": found.per_second,
        "mb_after_1000": memory[0][1],
        "mb_at_the_end": memory[-1][1],
        "growth_mb": memory[-1][1] - memory[0][1],
        "memory": memory[:: max(1, len(memory) // 20)],
    }


def folder(num_images: int, case: str = CASE) -> dict[str, Any]:
    """Images a second of `epochal classify DIR --csv`, and of the ceiling before and after it.

    Python has compiled the command's modules before, as any earlier use of the command does.
    """
    with tempfile.TemporaryDirectory() as text, lab(Path(text)) as started, ceiling() as best:
        kind, random = CASES[case][1], np.random.default_rng(0)
        few, images = Path(text) / "few", Path(text) / "images"
        for place, count in ((few, 2), (images, num_images)):
            place.mkdir()
            for number in range(count):
                (place / f"{number:05}.{kind}").write_bytes(picture(kind, random))
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(text) / "bytecode")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def classify(place: Path) -> tuple[float, float]:
            """Seconds of the command, and those that it counts itself, from the download on."""
            command = [sys.executable, "-m", "epochal", "classify", str(started.numbers[case]), str(place)]
            options = ["--csv", f"{place}.csv", "--url", started.url, "--json"]
            began = time.perf_counter()
            done = subprocess.run([*command, *options], check=True, stdout=-1, env=environment)
            seconds = time.perf_counter() - began
            with Path(f"{place}.csv").open(newline="") as file:
                assert len(list(csv.reader(file))) == len(list(place.iterdir())) + 1
            return seconds, float(json.loads(done.stdout)["seconds"])

        classify(few)
        best.per_second(case, 0.5)
        before = best.per_second(case, 5.0)
        seconds, told = classify(images)
        after = best.per_second(case, 5.0)
        shutil.rmtree(images)
    most = (before + after) / 2
    return {
        "case": case,
        "images": num_images,
        "seconds": seconds,
        "seconds_without_the_start_of_python": told,
        "per_second": num_images / seconds,
        "ceiling": most,
        "of_the_ceiling": num_images / seconds / most,
        "of_the_ceiling_without_the_start_of_python": num_images / told / most,
    }
