"""Whether TPE finds a better spec than random search in as many trials.

    python -m benchmarks.search                        5 repetitions of 12 trials each way, 120 trainings: 10 minutes
    python -m benchmarks.search --known trained.jsonl  keeps what was trained, and goes on from there
    python -m benchmarks.search --table 100            100 repetitions more, on a table of trained configurations

Each trial is the engine's own training of `narrow` on a part of CIFAR-10, drawn by models.studies.search as a worker
draws it, one after the other, without early ends: both ways train equally much. A repetition's result is the best
validation accuracy of its trials. Repetition n of either way has seed n, so that the first trials, which are drawn at
random, are others in each.

The table answers a drawn trial with the nearest of its configurations, in the scales that trials are drawn on.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

import torch

from models.data.dataset import ImageDataset, load_dataset
from models.settings import get_settings
from models.spec.rows import load_study
from models.spec.search import SearchSpec
from models.spec.study import StudySpec
from models.spec.trials import trial_spec
from models.studies.search import Ending, Trial, best_so_far, next_params
from worker.training.engine import train
from worker.training.sink import MemorySink

TRIALS = 12
REPETITIONS = 5
SAMPLERS = ("tpe", "random")
BASE = {"model": "narrow", "epochs": 3, "dataset": {"train_limit": 1000, "val_limit": 1000}}
SPACE = {
    "optimizer.lr": {"log": [1e-4, 1e-1]},
    "optimizer.momentum": {"uniform": [0, 0.99]},
    "batch_size": {"int": [16, 128], "log": True},
}
RATES = [10 ** (-4 + 3 * step / 12) for step in range(13)]
MOMENTA, BATCHES = (0.0, 0.5, 0.9, 0.97), (16, 45, 128)

Params = Mapping[str, Any]


class Known:
    """What was trained so far, kept in a file of JSON lines."""

    def __init__(self, path: Path | None, dataset: ImageDataset) -> None:
        self.path = path
        self.dataset = dataset
        self.results: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.results[_key(entry["params"])] = entry

    def train(self, params: Params) -> dict[str, Any]:
        """A configuration's epochs: trained now, unless it is known."""
        if _key(params) not in self.results:
            spec, sink = trial_spec(study_of("random", 0), params), MemorySink()
            with tempfile.TemporaryDirectory() as folder:
                outcome = train(spec, self.dataset, sink, Path(folder), device="cpu")
            values = best_so_far(sink.epochs)
            entry = {"params": dict(params), "values": values, "diverged": outcome.status == "diverged"}
            self.results[_key(params)] = json.loads(json.dumps(entry))
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
            words = " ".join(f"{name}={value:g}" for name, value in params.items())
            say(f"  {words}: {max(values.values(), default=0):.4f}")
        return self.results[_key(params)]


def _key(params: Params) -> str:
    return json.dumps(dict(params), sort_keys=True)


def study_of(sampler: str, seed: int) -> StudySpec:
    """The search as it would be POSTed."""
    search = {"sampler": sampler, "trials": TRIALS, "seed": seed, "space": SPACE}
    return load_study({"title": "Search", "base": BASE, "search": search})


def repeat(sampler: str, seed: int, measure: Callable[[Params], Mapping[str, Any]]) -> float:
    """One search: its best validation accuracy."""
    search = study_of(sampler, seed).search
    assert isinstance(search, SearchSpec)
    trials: list[Trial] = []
    while len(trials) < TRIALS:
        params = next_params(search, trials, lambda _: True)
        assert params is not None
        found = measure(params)
        values = {int(epoch): value for epoch, value in found["values"].items()}
        trials.append(Trial(len(trials), params, Ending.COMPLETE, values, found["diverged"]))
    return max(trial.value or 0.0 for trial in trials)


def distance(one: Params, other: Params) -> float:
    """How far two configurations are apart, each field in parts of its range."""
    rate = math.log10(one["optimizer.lr"] / other["optimizer.lr"]) / 3
    momentum = (one["optimizer.momentum"] - other["optimizer.momentum"]) / 0.99
    batch = math.log2(one["batch_size"] / other["batch_size"]) / 3
    return math.hypot(rate, momentum, batch)


def table_of(known: Known) -> Callable[[Params], Mapping[str, Any]]:
    """Answers with the nearest configuration of a table, which is trained first."""
    grid = itertools.product(RATES, MOMENTA, BATCHES)
    rows = [
        known.train(dict(zip(SPACE, (float(f"{rate:.4g}"), momentum, batch), strict=True)))
        for rate, momentum, batch in grid
    ]
    return lambda params: min(rows, key=lambda row: distance(row["params"], params))


def compare(repetitions: int, measure: Callable[[Params], Mapping[str, Any]]) -> dict[str, Any]:
    """The best of each repetition, both ways, and how often TPE is above random search's median."""
    best: dict[str, list[float]] = {sampler: [] for sampler in SAMPLERS}
    for seed in range(repetitions):
        for sampler in SAMPLERS:
            best[sampler].append(repeat(sampler, seed, measure))
        say(f"repetition {seed + 1}: " + ", ".join(f"{sampler} {best[sampler][-1]:.4f}" for sampler in SAMPLERS))
    medians = {sampler: statistics.median(values) for sampler, values in best.items()}
    above = sum(value > medians["random"] for value in best["tpe"])
    return {"best": best, "median": medians, "tpe_above_random_median": f"{above} of {repetitions}"}


def say(words: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def main() -> None:
    """Run the comparison and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--known", type=Path, default=None, help="file of what was trained")
    parser.add_argument("--table", type=int, default=0, metavar="REPETITIONS", help="repetitions on a table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = Known(arguments.known, load_dataset("cifar10", get_settings()))
    found = {"trained": compare(arguments.repetitions, known.train)} if arguments.repetitions else {}
    if arguments.table:
        found["table"] = compare(arguments.table, table_of(known))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
