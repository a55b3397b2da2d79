"""How fast the engine trains: against the lab report's own loop, and against the machine's ceiling.

    python -m benchmarks.training                  the table, about ten minutes
    python -m benchmarks.training --quick --json   the same with fewer rounds, as JSON and nothing else

Three programs train the same network, on the same images, one after the other and again, round after round:

    a  report    the report's loop as a user would write it today: a DataLoader with two workers, PIL transforms one
                 image at a time, .item() in every step (report_loop.py)
    b  engine    worker.training.engine.train() as the worker runs it, with metrics, guard, progress and checkpoints;
                 what is written at the end of an epoch is charged as for an epoch of 40,000 images
    c  ceiling   forward, backward and step of the same network on one batch that stays in memory, with the threads,
                 layout, memory and optimizer that the engine uses

`speedup` is b/a and `of_ceiling` b/c in images per second, each the median of the rounds' own ratios, so that a machine
that slows down for a while slows all three.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

import torch
from torch import nn

from benchmarks.cases import CASES, WARM_UP_BATCHES, Case
from benchmarks.report_loop import in_own_process
from models.data.dataset import ImageDataset, load_dataset
from models.metrics import EpochMetrics
from models.settings import get_settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from worker.training.build import build_batches, build_data, build_state
from worker.training.engine import train
from worker.training.sink import MemorySink
from worker.training.tuning import choose_tuning

EPOCH_IMAGES = 40_000
"""The training split of CIFAR-10, which what happens once an epoch is charged to."""
QUICK_SECONDS = 75.0
"""For the rounds of a case with --quick: four cases stay under eight minutes on a busy machine too."""


@dataclass
class _Stopwatch(MemorySink):
    """Notes when steps were done, and ends the run after enough images."""

    batch_size: int = 0
    images: int = 0
    num_steps: int = 0
    began: float = 0.0
    ended: float = 0.0
    marks: list[tuple[str, float]] = field(default_factory=list)

    def should_stop(self) -> str | None:
        """Asked by the engine after every step."""
        self.num_steps += 1
        if self.num_steps == WARM_UP_BATCHES:
            self.began = time.perf_counter()
        if self.num_steps * self.batch_size >= self.images + WARM_UP_BATCHES * self.batch_size:
            self.ended = time.perf_counter()
            return "cancel"
        return None

    def append_epoch(self, metrics: EpochMetrics) -> None:
        """Note when an epoch's measuring was over and its writing began."""
        super().append_epoch(metrics)
        self.marks.append(("appended", time.perf_counter()))

    def save(self, kind: Any, epoch: int, path: Path) -> None:
        """Note when an epoch's checkpoint, the last of its files, was written."""
        super().save(kind, epoch, path)
        if kind == "checkpoint":
            self.marks.append(("saved", time.perf_counter()))


def engine(case: Case, dataset: ImageDataset, saving_seconds: float) -> float:
    """Images per second of the engine in an epoch of the whole training split."""
    with tempfile.TemporaryDirectory() as folder:
        watch = _Stopwatch(batch_size=case.spec.batch_size, images=case.images)
        train(case.spec, dataset, watch, Path(folder), device="cpu", should_stop=watch.should_stop)  # type: ignore[arg-type]
    images = (watch.num_steps - WARM_UP_BATCHES) * case.spec.batch_size
    return images / (watch.ended - watch.began + saving_seconds * images / EPOCH_IMAGES)


def saving_seconds(case: Case, dataset: ImageDataset) -> float:
    """What an epoch's metrics, weights, kernels and checkpoint cost: the median of a few tiny epochs."""
    tiny = case.spec.model_dump(mode="json") | {"epochs": 4}
    tiny["dataset"] |= {"train_limit": 2 * case.spec.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        watch = _Stopwatch()
        train(parse_spec(tiny), dataset, watch, Path(folder), device="cpu")
    times = [
        after - before
        for (first, before), (second, after) in zip(watch.marks, watch.marks[1:], strict=False)
        if (first, second) == ("appended", "saved")
    ]
    return statistics.median(times)


def ceiling(spec: ExperimentSpec, dataset: ImageDataset, num_images: int, size: int | None = None) -> float:
    """Images per second of the same network's forward, backward and step on one batch that stays in memory.

    `size` is the side of the images, where it is not that of the spec's validation.
    """
    tuning = choose_tuning(spec, dataset, "cpu")
    with tuning.applied():
        data = build_data(spec, dataset, tuning)
        batches = build_batches(spec, data, tuning)
        state = build_state(spec, data, batches, tuning, None)
        network, optimizer = state.network.train(), state.optimizer
        batch = next(iter(batches.iterate(1, size or data.input_format.size)))
        images, labels = batch.images.clone(memory_format=torch.preserve_format), batch.labels
        num_steps = -(-num_images // len(labels))
        began = 0.0
        for step in range(WARM_UP_BATCHES + num_steps):
            if step == WARM_UP_BATCHES:
                began = time.perf_counter()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return num_steps * len(labels) / (time.perf_counter() - began)


def compare(
    case: Case,
    dataset: ImageDataset,
    rounds: int,
    seconds: float,
    report_loop: Callable[[Case], float],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All three programs on one case, interleaved; no further round is begun after so many seconds."""
    saving = saving_seconds(case, dataset)
    measured: dict[str, list[float]] = {"report": [], "engine": [], "ceiling": []}
    began = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - began > seconds:
            break
        measured["report"].append(report_loop(case))
        # the two that are close stand in turn before and after each other, so that a drift favours neither
        pair: list[tuple[str, Callable[[], float]]] = [
            ("engine", lambda: engine(case, dataset, saving)),
            ("ceiling", lambda: ceiling(case.spec, dataset, case.images)),
        ]
        for name, run in pair if number % 2 == 0 else pair[::-1]:
            measured[name].append(run())
        now = {name: round(values[-1]) for name, values in measured.items()}
        say(f"{case.name} round {number + 1}/{rounds}: {now} images/s")
    return {
        "case": case.name,
        "speedup": round(_median_ratio(measured["engine"], measured["report"]), 3),
        "of_ceiling": round(_median_ratio(measured["engine"], measured["ceiling"]), 3),
        "images_per_second": {name: round(statistics.median(values), 1) for name, values in measured.items()},
        "saving_seconds": round(saving, 4),
        "rounds": len(measured["report"]),
    }


def _median_ratio(upper: list[float], lower: list[float]) -> float:
    return statistics.median(above / below for above, below in zip(upper, lower, strict=True))


def as_table(results: dict[str, Any]) -> str:
    """The results as a Markdown table."""
    rows = [
        "| case | report's loop | engine | ceiling | engine / report | engine / ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for found in results["throughput"]:
        speeds = " | ".join(f"{found['images_per_second'][name]:,.0f}" for name in ("report", "engine", "ceiling"))
        rows.append(f"| {found['case']} | {speeds} | {found['speedup']:.2f} | {found['of_ceiling']:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under eight minutes")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case (may be repeated)")
    parser.add_argument("--rounds", type=int, help="rounds a case")
    options = parser.parse_args()
    say = (lambda text: None) if options.json else (lambda text: print(text, file=sys.stderr, flush=True))
    logging.disable(logging.INFO)
    dataset = load_dataset("cifar10", get_settings(), lambda label, done, total: say(label))
    results: dict[str, Any] = {"throughput": []}
    seconds = QUICK_SECONDS if options.quick else float("inf")
    with in_own_process() as report_loop:
        for case in CASES.values():
            if not options.case or case.name in options.case:
                rounds = options.rounds or (case.quick_rounds if options.quick else 2 * case.quick_rounds - 1)
                results["throughput"].append(compare(case, dataset, rounds, seconds, report_loop, say))
    print(json.dumps(results) if options.json else as_table(results))


if __name__ == "__main__":
    main()
