"""A store filled in bulk, as if a lab had been busy for years: experiments, curves, summaries, events, runs, tags."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import insert

from models.curves.metrics import SERIES, EpochMetrics, summarise
from models.plain import JsonObject
from models.spec.parse import model_label, parse_spec
from models.store import Status, Store
from models.store.columns import now
from models.store.states import EventKind, RunStatus
from models.store.tables import Base, EpochRow, Event, Experiment, ExperimentTag, Run, SummaryRow

MODELS = ("baseline", "wide", "three_blocks", "narrow")
DATASETS = ("cifar10", "fashion-mnist")
ENDS = (*[Status.COMPLETED] * 17, Status.FAILED, Status.CANCELLED, Status.DIVERGED)
BATCH = 200
"""Experiments a transaction."""

Rows = dict[type[Base], list[dict[str, Any]]]


def seed_store(store: Store, num_experiments: int, num_epochs: int, tell: Callable[[int], None]) -> None:
    """Fill a fresh store; `tell` is called with how many experiments are there."""
    random = np.random.default_rng(0)
    documents = {(model, dataset): _columns_of(model, dataset, num_epochs) for model in MODELS for dataset in DATASETS}
    first = now() - timedelta(minutes=5 * num_experiments)
    for start in range(1, num_experiments + 1, BATCH):
        rows: Rows = {table: [] for table in (Experiment, ExperimentTag, Run, EpochRow, SummaryRow, Event)}
        numbers = range(start, min(start + BATCH, num_experiments + 1))
        for number in numbers:
            common = documents[MODELS[number % len(MODELS)], DATASETS[number // 7 % len(DATASETS)]]
            created = first + timedelta(minutes=5 * number)
            _add_experiment(rows, number, common, created, _history(random, num_epochs))
        with store.writing() as session:
            for table, values in rows.items():
                session.execute(insert(table), values)
        tell(numbers[-1])


def _columns_of(model: str, dataset: str, num_epochs: int) -> dict[str, Any]:
    spec = parse_spec({"model": model, "dataset": {"name": dataset}, "epochs": num_epochs})
    return {
        "model": model_label(spec.model),
        "dataset": dataset,
        "spec": spec.as_json(),
        "spec_digest": spec.digest(),
    }


def _history(random: np.random.Generator, num_epochs: int) -> list[EpochMetrics]:
    """Plausible curves: exponential decay, overfitting from somewhere on, noise."""
    epochs = np.arange(1, num_epochs + 1)
    floor, speed, turn = random.uniform(0.5, 1.3), random.uniform(5, 30), random.uniform(20, 120)
    train_loss = floor * 0.6 + 1.7 * np.exp(-epochs / speed) + random.normal(0, 0.01, num_epochs)
    val_loss = floor + 1.4 * np.exp(-epochs / speed) + 0.004 * np.maximum(0, epochs - turn)
    val_loss += random.normal(0, 0.02, num_epochs)
    values = np.stack(
        [
            train_loss, np.exp(-train_loss).clip(0, 1), val_loss, np.exp(-val_loss).clip(0, 1),
            np.full(num_epochs, 0.01), random.uniform(0.5, 3, num_epochs), random.uniform(4, 5, num_epochs),
            random.uniform(9_000, 11_000, num_epochs), np.full(num_epochs, 320.0),
        ],
        axis=1,
    )  # fmt: skip
    return [EpochMetrics(int(epoch), *row) for epoch, row in zip(epochs, values.tolist(), strict=True)]


def _add_experiment(
    rows: Rows, number: int, common: dict[str, Any], created: datetime, epochs: list[EpochMetrics]
) -> None:
    status = ENDS[number % len(ENDS)]
    finished = created + timedelta(seconds=sum(epoch.seconds for epoch in epochs))
    rows[Experiment].append(
        {
            **common,
            "id": number,
            "name": f"run {number}",
            "status": status,
            "attempt": 1,
            "revision": len(epochs) + 3,
            "created_at": created,
            "updated_at": finished,
            "enqueued_at": created,
            "started_at": created,
            "finished_at": finished,
            "warnings": [],
        }
    )
    tags = ["all", f"week-{number // 500}", *(["favourite"] if number % 97 == 0 else [])]
    rows[ExperimentTag] += [{"experiment_id": number, "tag": tag, "position": place} for place, tag in enumerate(tags)]
    rows[Run].append(
        {
            "experiment_id": number,
            "attempt": 1,
            "max_attempts": 3,
            "worker": "worker-1",
            "status": RunStatus(status.value),
            "started_at": created,
            "ended_at": finished,
        }
    )
    rows[EpochRow] += [{"experiment_id": number, "attempt": 1, **asdict(epoch)} for epoch in epochs]
    rows[SummaryRow] += [
        {"experiment_id": number, "series": series, "best": one.best, "best_epoch": one.best_epoch, "last": one.last}
        for series, one in summarise(epochs).items()
    ]
    assert len(rows[SummaryRow]) % len(SERIES) == 0
    states = [Status.QUEUED, Status.RUNNING, status]
    data = [{"status": state.value, "attempt": 1, "reason": None} for state in states]
    told: list[tuple[EventKind, JsonObject]] = [(EventKind.STATE, data[0]), (EventKind.STATE, data[1])]
    told += [(EventKind.EPOCH, epoch.as_json()) for epoch in epochs]
    told.append((EventKind.STATE, data[2]))
    rows[Event] += [
        {"experiment_id": number, "kind": kind, "created_at": created, "data": content} for kind, content in told
    ]
