"""Small things that the store's tests make again and again."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

from models.curves.metrics import EpochMetrics
from models.settings import Settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from models.store import Store, experiments, runs
from models.store.runs import Claim
from tests.postgres import SERVER

sqlite_only = pytest.mark.skipif(SERVER is not None, reason="about SQLite's files")


def make_spec(**body: Any) -> ExperimentSpec:
    """A baseline spec with some things said."""
    return parse_spec({"model": "baseline", **body})


def add_experiment(store: Store, **body: Any) -> int:
    """A queued experiment's number."""
    with store.writing() as session:
        return experiments.create(session, make_spec(**body), layers=[], warnings=[]).id


def claim(store: Store, experiment_id: int, worker: str = "worker", max_attempts: int = 3) -> Claim:
    """A claim that must succeed."""
    with store.writing() as session:
        claimed = runs.claim(session, experiment_id, worker, max_attempts)
    assert claimed is not None
    return claimed


def start(store: Store, **body: Any) -> Claim:
    """A new experiment that is claimed at once."""
    return claim(store, add_experiment(store, **body))


def make_metrics(epoch: int, val_loss: float = 1.0, **changed: Any) -> EpochMetrics:
    """One epoch."""
    values: dict[str, Any] = {
        "train_loss": 1.5,
        "train_accuracy": 0.4,
        "val_accuracy": 0.5,
        "lr": 0.1,
        "grad_norm": 2.0,
        "seconds": 3.0,
        "images_per_second": 1000.0,
        "peak_memory_mb": 300.0,
    }
    return EpochMetrics(epoch=epoch, val_loss=val_loss, **{**values, **changed})


def in_processes(count: int, work: Callable[[Store, int], Any], settings: Settings) -> list[Any]:
    """Run `work(store, number)` in so many forked processes at once, each with its own store; what each returned."""
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(count), context.Queue()

    def body(number: int) -> None:
        store = Store(settings)
        gate.wait(60)
        try:
            answers.put(work(store, number))
        except BaseException as error:
            answers.put(repr(error))
            raise

    processes = [context.Process(target=body, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0, found
    return found
