"""How fast the engine trains: against the lab report's own loop, and against the machine's ceiling.

    python -m benchmarks.training                  the table, about ten minutes
    python -m benchmarks.training --quick --json   the same with fewer rounds, as JSON and nothing else

Three programs train the same network, on the same images:

    a  report    the report's loop as a user would write it today: a DataLoader with two workers, PIL transforms one
                 image at a time, .item() in every step (report_loop.py)
    b  engine    worker.training.engine.train() as the worker runs it, with metrics, guard, progress and checkpoints;
                 what is written at the end of an epoch is charged as for an epoch of 40,000 images
    c  ceiling   forward, backward and step of the same network on one batch that stays in memory: torch's fused
                 optimizer, and the threads, layout and memory that the engine uses

Rounds of a, and of b with c, follow each other; within a round b and c take turns of some 500 images, a tenth of a
second for small networks, since a virtual machine's speed changes from one second to the next by more than they differ.
`speedup` is b/a and `of_ceiling` b/c in images per second, the medians of the rounds' and of the turns' own ratios.
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
from models.curves.metrics import EpochMetrics
from models.data.dataset import ImageDataset, load_dataset
from models.networks.layers import head_of
from models.settings import get_settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from worker.training.build import build_batches, build_data, build_state
from worker.training.engine import train
from worker.training.optimizers import build_optimizer
from worker.training.sink import MemorySink
from worker.training.tuning import Tuning, choose_tuning

EPOCH_IMAGES = 40_000
"""The training split of CIFAR-10, which what happens once an epoch is charged to."""
QUICK_SECONDS = 70.0
"""For the rounds of a case with --quick: four cases stay under eight minutes on a busy machine too."""


class Ceiling:
    """Forward, backward and step of a spec's network on one batch that stays in memory.

    `size` is the side of the images, where it is not that of the spec's validation. To be used within the tuning.
    """

    def __init__(self, spec: ExperimentSpec, dataset: ImageDataset, tuning: Tuning, size: int | None = None) -> None:
        data = build_data(spec, dataset, tuning)
        batches = build_batches(spec, data, tuning)
        self.network = build_state(spec, data, batches, tuning, None).network.train()
        self.optimizer = build_optimizer(
            spec.optimizer, self.network, head_of(self.network), spec.fine_tuning, implementation="fused"
        )
        batch = next(iter(batches.iterate(1, size or data.input_format.size)))
        self.images, self.labels = batch.images.clone(memory_format=torch.preserve_format), batch.labels
        self.chunk_batches = batches.chunk_batches
        self.seconds_of(WARM_UP_BATCHES)

    def seconds_of(self, num_steps: int) -> float:
        """How long so many steps take."""
        began = time.perf_counter()
        for _ in range(num_steps):
            nn.functional.cross_entropy(self.network(self.images), self.labels).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began


class _Alternating(MemorySink):
    """Lets the engine train for a chunk's steps and the ceiling for as many, by turns, until there are enough.

    The engine asks after every step whether it should stop; the ceiling's turns are within that question, and so
    outside the engine's.
    """

    def __init__(self, ceiling: Ceiling, num_turns: int) -> None:
        super().__init__()
        self.ceiling = ceiling
        self.num_turns = num_turns
        self.num_steps = 0
        self.engine_seconds: list[float] = []
        self.ceiling_seconds: list[float] = []
        self.began = 0.0

    def should_stop(self) -> str | None:
        """Asked by the engine after every step. The first turn, in which it warms up, does not count."""
        self.num_steps += 1
        if self.num_steps % self.ceiling.chunk_batches:
            return None
        if self.num_steps > self.ceiling.chunk_batches:
            self.engine_seconds.append(time.perf_counter() - self.began)
            self.ceiling_seconds.append(self.ceiling.seconds_of(self.ceiling.chunk_batches))
        self.began = time.perf_counter()
        return "cancel" if len(self.engine_seconds) == self.num_turns else None


@dataclass
class _Stopwatch(MemorySink):
    """Notes when epochs were appended and saved."""

    marks: list[tuple[str, float]] = field(default_factory=list)

    def append_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        """Note when an epoch's measuring was over and its writing began."""
        super().append_epoch(metrics, class_accuracy)
        self.marks.append(("appended", time.perf_counter()))

    def save(self, kind: Any, epoch: int, path: Path) -> None:
        """Note when an epoch's checkpoint, the last of its files, was written."""
        super().save(kind, epoch, path)
        if kind == "checkpoint":
            self.marks.append(("saved", time.perf_counter()))


def engine_and_ceiling(case: Case, dataset: ImageDataset, saving: float) -> tuple[list[float], list[float]]:
    """Images per second of the engine, in an epoch of the whole training split, and of the ceiling, by turns."""
    tuning = choose_tuning(case.spec, dataset, "cpu")
    with tuning.applied():
        ceiling = Ceiling(case.spec, dataset, tuning)
        images = ceiling.chunk_batches * case.spec.batch_size
        turns = _Alternating(ceiling, -(-case.images // images))
        with tempfile.TemporaryDirectory() as folder:
            train(case.spec, dataset, turns, Path(folder), device="cpu", should_stop=turns.should_stop)  # type: ignore[arg-type]
    share = saving * images / EPOCH_IMAGES
    engine = [images / (taken + share) for taken in turns.engine_seconds]
    return engine, [images / taken for taken in turns.ceiling_seconds]


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
    """Images per second of the ceiling alone."""
    tuning = choose_tuning(spec, dataset, "cpu")
    with tuning.applied():
        steps = Ceiling(spec, dataset, tuning, size)
        num_steps = -(-num_images // len(steps.labels))
        return num_steps * len(steps.labels) / steps.seconds_of(num_steps)


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
    speedups: list[float] = []
    of_ceiling: list[float] = []
    began = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - began > seconds:
            break
        report = report_loop(case)
        engine, ceiling = engine_and_ceiling(case, dataset, saving)
        of_ceiling += [ours / best for ours, best in zip(engine, ceiling, strict=True)]
        of_round = {"report": report, "engine": statistics.median(engine), "ceiling": statistics.median(ceiling)}
        speedups.append(of_round["engine"] / report)
        for name, speed in of_round.items():
            measured[name].append(speed)
        now = {name: round(speed) for name, speed in of_round.items()}
        say(f"{case.name} round {number + 1}/{rounds}: {now} images/s")
    return {
        "case": case.name,
        "speedup": round(statistics.median(speedups), 3),
        "of_ceiling": round(statistics.median(of_ceiling), 3),
        "images_per_second": {name: round(statistics.median(values), 1) for name, values in measured.items()},
        "saving_seconds": round(saving, 4),
        "rounds": len(speedups),
        "turns": len(of_ceiling),
    }


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

    def say(text: str) -> None:
        if not options.json:
            print(text, file=sys.stderr, flush=True)

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
