"""Epoch metrics: appended by the worker that owns the run. Epochs are 1..N, each once, whatever fails."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, delete, exists, func, insert, literal, select, update
from sqlalchemy.orm import Session

from models.curves.metrics import EMPTY, SERIES, EpochMetrics, Summary, summarise
from models.store.rows import Lease, add_event, fenced, touch
from models.store.states import EventKind
from models.store.tables import EpochRow, Experiment, Run, SummaryRow

EPOCHS = EpochRow.__table__.c  # the table's columns and not the class's: rows come as they are, in half the time
ROWS = select(EPOCHS.experiment_id, EPOCHS.epoch, *(EPOCHS[series] for series in SERIES)).order_by(
    EPOCHS.experiment_id, EPOCHS.epoch
)
OF_ONE = ROWS.where(EPOCHS.experiment_id == bindparam("id"))
OF_SEVERAL = ROWS.where(EPOCHS.experiment_id.in_(bindparam("ids", expanding=True)))
GRAD_NORM = SERIES.index("grad_norm")
NAN = float("nan")
COPIED = 0
"""The attempt of epochs that an experiment began with; its own attempts count from 1."""


def append_epoch(
    session: Session, lease: Lease, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None
) -> None:
    """Store one epoch, with the validation accuracy of each class, update the summaries and add an event.

    If the epoch exists, it is replaced and later ones are deleted: training has gone back to it. Raises ValueError for
    an epoch that would leave a gap.
    """
    experiment = fenced(session, lease)
    last_epoch = _last_epoch(session, lease.experiment_id)
    if not 1 <= metrics.epoch <= last_epoch + 1:
        raise ValueError(f"epoch {metrics.epoch} does not follow epoch {last_epoch} of {lease.experiment_id}")
    if metrics.epoch <= last_epoch:
        _drop_after(session, lease.experiment_id, metrics.epoch - 1)
    values = metrics.as_json()
    session.add(
        EpochRow(experiment_id=lease.experiment_id, attempt=lease.attempt, class_accuracy=class_accuracy, **values)
    )
    _extend_summaries(session, lease.experiment_id, metrics)
    touch(experiment)
    add_event(session, lease.experiment_id, EventKind.EPOCH, values)


def copy(session: Session, original: int, continuation: int, last_epoch: int) -> None:
    """Copy the epochs of another experiment, up to `last_epoch`, to one without epochs, which continues it."""
    names = ("epoch", *SERIES, "class_accuracy")
    rows = select(literal(continuation), literal(COPIED), *(EPOCHS[name] for name in names))
    rows = rows.where(EPOCHS.experiment_id == original, EPOCHS.epoch <= last_epoch)
    session.execute(insert(EpochRow).from_select(["experiment_id", "attempt", *names], rows))
    _add_summaries(session, continuation, summarise(read(session, continuation)).items())


def has_copied_epochs() -> ColumnElement[bool]:
    """A condition of a query of experiments: whether one began with epochs of another, even if that was deleted."""
    return exists().where(EpochRow.experiment_id == Experiment.id, EpochRow.attempt == COPIED)


def rewind(session: Session, lease: Lease, last_epoch: int) -> None:
    """Delete the epochs after `last_epoch`, from which training continues."""
    experiment = fenced(session, lease)
    session.execute(
        update(Run).where(Run.id == lease.run_id, Run.start_epoch > last_epoch).values(start_epoch=last_epoch)
    )
    if _last_epoch(session, lease.experiment_id) <= last_epoch:
        return
    _drop_after(session, lease.experiment_id, last_epoch)
    touch(experiment)
    text = f"training continues from the end of epoch {last_epoch}; later epochs are trained again"
    data = {"code": "rewound", "text": text, "data": {"last_epoch": last_epoch}}
    add_event(session, lease.experiment_id, EventKind.NOTICE, data)


def read(session: Session, experiment_id: int) -> list[EpochMetrics]:
    """Read an experiment's epochs in order; NaN for values that were not finite."""
    return _histories(session.execute(OF_ONE, {"id": experiment_id})).get(experiment_id, [])


def read_many(session: Session, ids: Sequence[int]) -> dict[int, list[EpochMetrics]]:
    """The epochs of several experiments, by one query; an empty list for one without any."""
    found = _histories(session.execute(OF_SEVERAL, {"ids": ids}))
    return {identifier: found.get(identifier, []) for identifier in ids}


def read_series(session: Session, ids: Sequence[int], series: str) -> dict[int, list[float | None]]:
    """Read one series of several experiments in one query; None for values that were not finite."""
    query = select(EpochRow.experiment_id, getattr(EpochRow, series)).where(EpochRow.experiment_id.in_(ids))
    found: dict[int, list[float | None]] = {identifier: [] for identifier in ids}
    for identifier, value in session.execute(query.order_by(EpochRow.experiment_id, EpochRow.epoch)):
        found[identifier].append(value)
    return found


def read_class_accuracy(session: Session, experiment_id: int) -> list[tuple[int, list[float | None] | None]]:
    """Each epoch with the validation accuracy of each class; None for an epoch without, as those of version 0.1 are."""
    query = select(EpochRow.epoch, EpochRow.class_accuracy).where(EpochRow.experiment_id == experiment_id)
    return [(epoch, values) for epoch, values in session.execute(query.order_by(EpochRow.epoch))]


def _histories(rows: Iterable[Row[*tuple[Any, ...]]]) -> dict[int, list[EpochMetrics]]:
    histories: dict[int, list[EpochMetrics]] = {}
    for row in rows:
        histories.setdefault(row[0], []).append(_metrics(row))
    return histories


def _metrics(row: Row[*tuple[Any, ...]]) -> EpochMetrics:
    _, epoch, *values = row
    grad_norm = values[GRAD_NORM]
    values = [NAN if value is None else value for value in values]
    values[GRAD_NORM] = grad_norm  # the one series that may not have been measured at all
    return EpochMetrics(epoch, *values)


def _last_epoch(session: Session, experiment_id: int) -> int:
    return session.scalar(select(func.max(EpochRow.epoch)).where(EpochRow.experiment_id == experiment_id)) or 0


def _drop_after(session: Session, experiment_id: int, last_epoch: int) -> None:
    """Delete later epochs and compute the summaries again from the rest."""
    where = EpochRow.experiment_id == experiment_id, EpochRow.epoch > last_epoch
    session.execute(delete(EpochRow).where(*where))
    session.execute(delete(SummaryRow).where(SummaryRow.experiment_id == experiment_id))
    _add_summaries(session, experiment_id, summarise(read(session, experiment_id)).items())


def _extend_summaries(session: Session, experiment_id: int, metrics: EpochMetrics) -> None:
    rows = session.scalars(select(SummaryRow).where(SummaryRow.experiment_id == experiment_id))
    known = {row.series: row for row in rows}
    fresh: list[tuple[str, Summary]] = []
    for series in SERIES:
        row = known.get(series)
        before = EMPTY if row is None else Summary(row.best, row.best_epoch, row.last)
        after = before.extended(series, metrics.epoch, getattr(metrics, series))
        if row is None:
            fresh.append((series, after))
        else:
            row.best, row.best_epoch, row.last = after.best, after.best_epoch, after.last
    _add_summaries(session, experiment_id, fresh)


def _add_summaries(session: Session, experiment_id: int, summaries: Iterable[tuple[str, Summary]]) -> None:
    for series, summary in summaries:
        session.add(
            SummaryRow(
                experiment_id=experiment_id,
                series=series,
                best=summary.best,
                best_epoch=summary.best_epoch,
                last=summary.last,
            )
        )
