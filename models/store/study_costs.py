"""Estimates the cost of a study's rows: from dry runs at first, then from the runs that have ended."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from models.spec.changes import with_changes
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from models.store import history, measurements, runs
from models.store.states import Status
from models.store.tables import Experiment, Measurement, StudyRow
from models.studies.budget import Work
from models.studies.images import split_sizes

START_SECONDS = 5.0
"""From the queue to the first step, and from the last one to the end, until a run has shown it."""
UNMEASURED_IPS = 300.0
"""Images a second of a row whose dry run failed, where no other row was measured."""

FASTEST, SLOWEST = 0.7, 2.0
"""By how much the other rows are taken to be faster or slower than their dry runs, whatever the first ones showed."""

OfRow = Callable[[StudyRow], list[Experiment]]
"""The experiments of a row that have begun."""


def measured_spec(row: StudyRow) -> ExperimentSpec:
    """The spec that a row's dry run measures: that of a budget, which shortens the row."""
    return with_changes(load_spec(row.spec), row.when_shortened)


def cost_key(spec: ExperimentSpec) -> str:
    """The part of a spec that decides the cost of a step, as text: rows of the same key share a dry run."""
    body = spec.as_json()
    for name in ("name", "tags", "seed", "epochs", "lr_scheduler", "early_stopping", "on_divergence", "clip_grad_norm"):
        body.pop(name, None)
    body["optimizer"] = body["optimizer"]["name"]
    body["dataset"] = body["dataset"]["name"]
    return json.dumps(body, sort_keys=True)


def works_of(
    session: Session, rows: Sequence[StudyRow], of_row: OfRow, missing: Sequence[tuple[StudyRow, int]]
) -> list[Work]:
    """The work of the runs that have not begun, by dry runs, corrected by how long ended runs really took."""
    counted: dict[int, int] = {}
    known: set[tuple[str, int]] = set()
    for row, repeat in missing:
        run = (_identity(row), repeat)  # rows that ask for the same runs share them
        counted[row.position] = counted.get(row.position, 0) + (run not in known)
        known.add(run)
    slowest = _slowest(session, rows)
    factors, start = _learned(session, rows, of_row)
    typical = sorted(factors.values())[len(factors) // 2] if factors else 1.0
    typical = min(max(typical, FASTEST), SLOWEST)
    works = []
    for row in rows:
        if row.position in counted:
            work = _work_of(session, row, counted[row.position], start, slowest)
            factor = factors.get(cost_key(measured_spec(row)), typical)
            works.append(
                Work(**{**vars(work), "train_seconds": work.train_seconds * factor,
                        "val_seconds": work.val_seconds * factor})
            )  # fmt: skip
    return works


def _identity(row: StudyRow) -> str:
    """What a row's runs depend on: rows of the same identity are shortened alike, and share their runs."""
    return json.dumps([load_spec(row.spec).digest(), row.share, row.min_epochs, row.when_shortened], sort_keys=True)


def seconds_left_of(session: Session, experiment: Experiment, row: StudyRow, work: Work) -> float:
    """What a run that has not ended still takes, by its row's work: at the pace of its middle epoch so far.

    Its last epoch alone, which a run's own estimate goes by, may have been slow or fast by chance.
    """
    spec = load_spec(experiment.spec)
    train, val, test = split_sizes(spec, row.images)
    epochs = sorted(epoch.seconds for epoch in history.read(session, experiment.id) if epoch.seconds > 0)
    each = epochs[len(epochs) // 2] if epochs else train * work.train_seconds + val * work.val_seconds
    start = 0.0 if epochs else work.start_seconds
    return start + (spec.epochs - len(epochs)) * each + (val + test) * work.val_seconds


def _work_of(session: Session, row: StudyRow, runs: int, start: float, unmeasured: float) -> Work:
    spec = load_spec(row.spec)
    train, val, test = split_sizes(spec, row.images)
    result: dict[str, Any] = {}
    if row.measurement is not None:
        result = measurements.get(session, row.measurement).result or {}
    speed = float(result.get("images_per_second") or unmeasured)
    an_epoch = float(result.get("seconds_per_epoch") or train / speed + val / (3 * speed))
    val_seconds = max(an_epoch - train / speed, 0.05 * val / speed) / val
    return Work(row.key, spec.epochs, train, val, test, 1 / speed, val_seconds, start, row.share, row.min_epochs, runs)


def _slowest(session: Session, rows: Sequence[StudyRow]) -> float:
    """Images a second of the slowest measured row, which is assumed for a row whose dry run was interrupted."""
    numbers = {row.measurement for row in rows if row.measurement is not None}
    results = [measurements.get(session, number).result or {} for number in numbers]
    return min(
        [float(each["images_per_second"]) for each in results if "images_per_second" in each] or [UNMEASURED_IPS]
    )


def was_interrupted(measurement: Measurement) -> bool:
    """Whether a dry run failed for a reason that says nothing of its spec: it took too long, or its worker was lost."""
    reason = measurement.reason or ""
    return any(part in reason for part in ("took longer", "stopped responding", "without a result"))


def _learned(session: Session, rows: Sequence[StudyRow], of_row: OfRow) -> tuple[dict[str, float], float]:
    """By how much each kind of row is slower than its dry run, and the seconds at a run's start and end."""
    slower: dict[str, list[float]] = {}
    starts = []
    numbers = [experiment.id for row in rows for experiment in of_row(row)]
    histories, spans = history.read_many(session, numbers), runs.spans_of(session, numbers)
    for row in rows:
        for experiment in of_row(row):
            epochs = [epoch for epoch in histories[experiment.id] if epoch.seconds > 0]
            if not epochs:
                continue
            spec = load_spec(experiment.spec)
            train, val, test = split_sizes(spec, row.images)
            work = _work_of(session, row, 1, START_SECONDS, UNMEASURED_IPS)
            expected = train * work.train_seconds + val * work.val_seconds
            seconds = sorted(epoch.seconds for epoch in epochs)
            slower.setdefault(cost_key(measured_spec(row)), []).append(seconds[len(seconds) // 2] / expected)
            if experiment.status is Status.COMPLETED:
                took = seconds_in(spans[experiment.id]) - sum(seconds)
                starts.append(max(took - (val + test) * work.val_seconds, 0.5))
    factors = {key: sorted(values)[len(values) // 2] for key, values in slower.items()}
    return factors, sorted(starts)[len(starts) // 2] + 1.0 if starts else START_SECONDS


def wall_seconds(session: Session, experiment_id: int) -> float:
    """Seconds that the attempts at an experiment took, of those that have ended."""
    return seconds_in(runs.spans_of(session, [experiment_id])[experiment_id])


def seconds_in(attempts: Iterable[runs.Span]) -> float:
    """Seconds of the attempts that have ended."""
    return sum((ended - began).total_seconds() for began, ended in attempts if ended is not None)
