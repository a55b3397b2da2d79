"""Accuracy against training time: the fast presets over several seeds, and fixed time budgets.

    python -m benchmarks.accuracy                       both presets over three seeds, then the budgets: an hour
    python -m benchmarks.accuracy fast_resnet           one preset (or one budget: 1min, 3min, 10min)
    python -m benchmarks.accuracy --seeds 1 --json      one seed each, as JSON

Every run is the engine's as a worker has it, on all of CIFAR-10 with its split of 40,000 and 10,000. `seconds` is the
whole run, from the spec to the stored verdict: training, validation, files. `of_ceiling` is the time of the training
part over what forward, backward and step of the same network take for as many images on one batch that stays in memory,
which is measured just before the run and just after it.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

from benchmarks.training import ceiling
from models.curves.metrics import EpochMetrics
from models.data.dataset import ImageDataset, load_dataset
from models.data.splits import split_indices
from models.settings import get_settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from worker.training.build import input_size_in
from worker.training.engine import train
from worker.training.sink import MemorySink

CEILING_BATCHES = 20
PRESETS: dict[str, dict[str, Any]] = {name: {"preset": name} for name in ("fast_resnet", "fine_tune_squeezenet")}
BUDGETS: dict[str, dict[str, Any]] = {
    "1min": {
        "preset": "fine_tune_squeezenet",
        "dataset": {"train_limit": 8_000},
        "test_time_augmentation": "none",
    },
    "3min": {"preset": "fine_tune_squeezenet", "dataset": {"train_limit": 32_000}},
    "10min": {"preset": "fast_resnet", "epochs": 6},
}
"""The best known for a minute, three and ten on two cores; the seconds that a run took stand beside its accuracy."""


class _Progress(MemorySink):
    def append_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        super().append_epoch(metrics, class_accuracy)
        say(f"  epoch {metrics.epoch}: val accuracy {metrics.val_accuracy:.4f}, {metrics.seconds:.1f} s")


def measure(name: str, body: dict[str, Any], seed: int, dataset: ImageDataset) -> dict[str, Any]:
    """Train once; ceilings are taken before and after."""
    spec = parse_spec({**body, "seed": seed})
    before = ceiling_seconds(spec, dataset)
    sink = _Progress()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(spec, dataset, sink, Path(folder), device="cpu", cache_dir=get_settings().cache_dir)
    seconds = time.perf_counter() - began
    after = ceiling_seconds(spec, dataset)
    training = sink.environments[-1]["seconds"]["training"]
    found = {
        "run": name,
        "seed": seed,
        "status": outcome.status,
        "val_accuracy": max(metrics.val_accuracy for metrics in sink.epochs),
        "images": images_of(spec, dataset) * len(sink.epochs),
        "seconds": round(seconds, 1),
        "training_seconds": round(training, 1),
        "of_ceiling": round(training / statistics.mean((before, after)), 3),
    }
    say(f"{name}, seed {seed}: {found['val_accuracy']:.4f} in {seconds:.0f} s, {found['of_ceiling']:.2f} x the ceiling")
    return found


def ceiling_seconds(spec: ExperimentSpec, dataset: ImageDataset) -> float:
    """Seconds that the bare network takes for all images of the spec's epochs."""
    sizes = [
        input_size_in(spec, epoch, spec.model.input_size or dataset.info.size) for epoch in range(1, spec.epochs + 1)
    ]
    speeds = {size: ceiling(spec, dataset, CEILING_BATCHES * spec.batch_size, size) for size in set(sizes)}
    return sum(images_of(spec, dataset) / speeds[size] for size in sizes)


def images_of(spec: ExperimentSpec, dataset: ImageDataset) -> int:
    """Training images of an epoch."""
    return len(split_indices(dataset.train_labels, spec.dataset)[0])


def as_table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    rows = ["| run | seed | val accuracy | images | seconds | training / ceiling |", "|---|---|---|---|---|---|"]
    for found in results:
        rows.append(
            f"| {found['run']} | {found['seed']} | {found['val_accuracy']:.4f} | {found['images']:,} | "
            f"{found['seconds']:.0f} | {found['of_ceiling']:.2f} |"
        )
    return "\n".join(rows)


def say(text: str) -> None:
    """Print a progress line on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run what was asked for and print it."""
    runs = {**PRESETS, **BUDGETS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", nargs="*", metavar="RUN", help=f"of {', '.join(runs)}; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds a preset is trained with (3)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on standard output")
    options = parser.parse_args()
    if unknown := set(options.run) - set(runs):
        parser.error(f"there is no run {', '.join(sorted(unknown))}; there are {', '.join(runs)}")
    logging.disable(logging.INFO)
    dataset = load_dataset("cifar10", get_settings())
    results = [
        measure(name, runs[name], seed, dataset)
        for name in options.run or runs
        for seed in range(options.seeds if name in PRESETS else 1)
    ]
    print(json.dumps(results) if options.json else as_table(results))


if __name__ == "__main__":
    main()
