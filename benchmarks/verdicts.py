"""Cost of the verdicts of a run: processor seconds, by number of epochs.

    python -m benchmarks.verdicts                         runs of 1,250 to 10,000 epochs
    python -m benchmarks.verdicts --epochs 5000 10000     runs of these lengths

Nothing is trained. What decides in a training process when there is a verdict (`worker/training/verdicts.py`) is called
after every epoch as the engine calls it, with histories of three kinds and the first layer's kernels of `baseline`, on
a clock that says how long the epochs would have taken.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from models.curves.metrics import EpochMetrics
from models.spec.parse import parse_spec
from worker.training.history import RunHistory
from worker.training.kernels import KernelHistory
from worker.training.sink import MemorySink
from worker.training.verdicts import Verdicts

LENGTHS = (1_250, 2_500, 5_000, 10_000)
EPOCH_SECONDS = (0.1, 5.0)
"""An epoch of a few hundred images, and one of `baseline` on CIFAR-10's 40,000 on two cores."""
KINDS = ("overfits", "improves", "never learns")
KERNEL_SHAPE = (32, 3, 5, 5)


@dataclass
class Clock:
    """Time that passes by what is added to it, and by the processor time that this process uses."""

    added: float = 0.0

    def __call__(self) -> float:
        return self.added + time.process_time()


def make_history(kind: str, num_epochs: int) -> list[EpochMetrics]:
    """A noisy history of a kind, of ten classes."""
    rng = np.random.default_rng(num_epochs)
    t = np.arange(1, num_epochs + 1) / num_epochs
    learned = np.zeros(num_epochs) if kind == "never learns" else 1 - np.exp(-t / 0.15)
    risen = 0.8 * np.maximum(t - 0.3, 0) if kind == "overfits" else np.zeros(num_epochs)
    noise = rng.normal(0, 0.02, (4, num_epochs))
    train_loss, val_loss = 2.3 - 2.0 * learned + noise[0], 2.3 - 1.4 * learned + risen + noise[1]
    train_accuracy, val_accuracy = 0.1 + 0.85 * learned + 0.1 * noise[2], 0.1 + 0.6 * learned - 0.05 * risen + noise[3]
    return [
        EpochMetrics(n + 1, float(a), float(b), float(c), float(d), 0.01, 1.0, 5.0, 8000.0, 300.0)
        for n, (a, b, c, d) in enumerate(
            zip(train_loss, train_accuracy.clip(0, 1), val_loss, val_accuracy.clip(0, 1), strict=True)
        )
    ]


@dataclass(frozen=True)
class Cost:
    """What the verdicts of one run took."""

    num_verdicts: int
    cpu_seconds: float
    last_seconds: float


def measure(kind: str, num_epochs: int, epoch_seconds: float) -> Cost:
    """Call Verdicts through a whole run."""
    spec = parse_spec({"model": "baseline", "epochs": num_epochs})
    sink, clock, kernels = MemorySink(), Clock(), KernelHistory()
    history = RunHistory()
    verdicts = Verdicts(spec, 10, history, sink, clock)
    weight = torch.randn(KERNEL_SHAPE, generator=torch.Generator().manual_seed(0))
    spent = last = 0.0
    best = np.inf
    for metrics in make_history(kind, num_epochs):
        clock.added += epoch_seconds
        kernels.add(metrics.epoch, weight * (1 + metrics.epoch / num_epochs), is_best=metrics.val_loss < best)
        best = min(best, metrics.val_loss)
        history.epochs.append(metrics)
        began = time.process_time()
        verdicts.judge_if_due(kernels.by_epoch)
        spent += time.process_time() - began
    began = time.process_time()
    verdicts.judge_finished(kernels.by_epoch(), filters=None)
    last = time.process_time() - began
    return Cost(len(sink.verdicts), spent + last, last)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, nargs="+", default=LENGTHS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(
        "| run | epochs | seconds an epoch | verdicts | CPU s in all | of the run's time | last verdict, s |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for kind in KINDS:
        for seconds in EPOCH_SECONDS:
            for num_epochs in asked.epochs:
                cost = measure(kind, num_epochs, seconds)
                share = cost.cpu_seconds / (num_epochs * seconds)
                sys.stdout.write(
                    f"| {kind} | {num_epochs:,} | {seconds:g} | {cost.num_verdicts} | {cost.cpu_seconds:.1f} | "
                    f"{share:.2%} | {cost.last_seconds:.2f} |\n"
                )
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
