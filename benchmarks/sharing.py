"""Several experiments on one machine: what two get done side by side, and how much memory one holds.

Each run is a process of its own, as in the worker. `threads` is what OMP_NUM_THREADS allows it:
`epochal up --workers 2` gives every worker its share of the cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

from models.data.dataset import load_dataset
from models.settings import get_settings
from models.spec.parse import parse_spec
from worker.training.engine import train
from worker.training.sink import MemorySink

SECONDS = 6.0
SHARED_MB = 184.3
"""CIFAR-10's 60,000 images as bytes, of which all processes map one copy."""


def one_run(batch_size: int) -> dict[str, float]:
    """Train `baseline` on all of CIFAR-10 for a few seconds in this process."""
    dataset = load_dataset("cifar10", get_settings(), lambda label, done, total: None)
    spec = parse_spec({"model": "baseline", "batch_size": batch_size, "epochs": 50})
    sink, steps, began = MemorySink(), 0, 0.0

    def should_stop() -> str | None:
        nonlocal steps, began
        steps += 1
        if steps == 10:
            began = time.perf_counter()
        return "cancel" if steps > 10 and time.perf_counter() - began > SECONDS else None

    with tempfile.TemporaryDirectory() as folder:
        train(spec, dataset, sink, Path(folder), device="cpu", should_stop=should_stop)  # type: ignore[arg-type]
    return {"images_per_second": (steps - 10) * batch_size / SECONDS}


def peak_memory_mb() -> float:
    """Peak memory of one epoch of `baseline`, without the images that processes share."""
    dataset = load_dataset("cifar10", get_settings(), lambda label, done, total: None)
    sink = MemorySink()
    with tempfile.TemporaryDirectory() as folder:
        train(parse_spec({"model": "baseline", "epochs": 1, "batch_size": 128}), dataset, sink, Path(folder))
    return sink.epochs[-1].peak_memory_mb - SHARED_MB


def compare(rounds: int) -> dict[str, Any]:
    """One run with all cores, two with half of them each, and two that each want all; in turn."""
    cores = os.cpu_count() or 1
    kinds = {"one": (1, cores), "two, cores shared": (2, max(1, cores // 2)), "two, each all cores": (2, cores)}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, (count, threads) in kinds.items():
            found[name].append(sum(run["images_per_second"] for run in _side_by_side(count, threads)))
    return {name: round(sorted(values)[len(values) // 2]) for name, values in found.items()}


def _side_by_side(count: int, threads: int) -> list[dict[str, float]]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.sharing", "--one-run", "16"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(count)]
    return [json.loads(run.communicate()[0]) for run in runs]


def main() -> None:
    """Compare, or be one of the compared."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--one-run", type=int, metavar="BATCH", help="be one run and print its figure")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.one_run:
        print(json.dumps(one_run(options.one_run)))
        return
    print(json.dumps({"images_per_second": compare(options.rounds), "peak_memory_mb": round(peak_memory_mb())}))


if __name__ == "__main__":
    main()
