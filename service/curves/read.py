"""An experiment's curves, read for JSON, for CSV and for drawing."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from models.curves.metrics import SERIES, EpochMetrics, thin
from models.data.uploaded import find_dataset
from models.errors import InvalidRequest, NotFound
from models.plain import finite
from models.settings import Settings
from models.spec.parse import load_spec
from models.store import experiments, history
from models.store.tables import Experiment
from service.curves.documents import ClassAccuracies, ClassMetricsDocument, metrics_json
from service.drawing.series import CurveData
from service.drawing.text import families
from service.http.routing import MAX_ID

MAX_COMPARED = 11
CSV_TYPE = "text/csv; charset=utf-8; header=present"
LINE_END = "\r\n"  # RFC 4180


@dataclass(frozen=True, slots=True)
class Drawable:
    """Curves to draw, with everything that the picture's ETag depends on."""

    runs: list[CurveData]
    key: tuple[object, ...]


def read_metrics(session: Session, experiment_id: int, points: int | None) -> bytes:
    """The curves as JSON, thinned to about `points` epochs."""
    epochs = read_epochs(session, experiment_id, points)
    return metrics_json(experiment_id, epochs, experiments.summaries(session, [experiment_id])[experiment_id])


def read_epochs(session: Session, experiment_id: int, points: int | None) -> list[EpochMetrics]:
    """The epochs of an experiment, thinned to about `points`; NotFound if there is no such experiment."""
    experiments.require(session, experiment_id)
    epochs = history.read(session, experiment_id)
    return epochs if points is None else thin(epochs, points)


def read_class_metrics(session: Session, experiment_id: int, settings: Settings) -> ClassMetricsDocument:
    """The validation accuracy of each class in every epoch; NotFound if there is no such experiment."""
    row = experiments.get(session, experiment_id)
    dataset = find_dataset(load_spec(row.spec).dataset, settings)
    return ClassMetricsDocument(
        experiment_id=experiment_id,
        classes=list(dataset.info.class_names),
        epochs=[
            ClassAccuracies(epoch=epoch, accuracy=accuracy)
            for epoch, accuracy in history.read_class_accuracy(session, experiment_id)
        ],
    )


def as_csv(epochs: Sequence[EpochMetrics]) -> bytes:
    """One row an epoch; a cell is empty where a value was not finite or not measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=LINE_END)
    writer.writerow(["epoch", *SERIES])
    for epoch in epochs:
        writer.writerow([epoch.epoch, *(finite(getattr(epoch, series)) for series in SERIES)])
    return text.getvalue().encode()


def read_curves(session: Session, experiment_id: int, compare: str | None) -> Drawable:
    """The curves of an experiment and of those it is compared with."""
    ids = compared_ids(session, experiment_id, compare)
    rows = [experiments.get(session, identifier) for identifier in ids]
    histories = history.read_many(session, ids)
    runs = [CurveData(row.id, row.name, histories[row.id], row.verdict, row.status.terminal) for row in rows]
    key = tuple((run.id, run.name, families(run.name), run.history, run.verdict, run.ended) for run in runs)
    return Drawable(runs, key)


def compared_ids(session: Session, experiment_id: int, compare: str | None) -> list[int]:
    """Return the ids of the experiment and those in `compare`, each once. Raises InvalidRequest."""
    ids = list(dict.fromkeys([experiment_id, *_read_ids(compare)]))
    for identifier in ids[1:]:
        get_compared(session, identifier)
    return ids


def get_compared(session: Session, experiment_id: int) -> Experiment:
    """Read an experiment named in `compare`. Raises InvalidRequest, not NotFound: the address itself exists."""
    try:
        return experiments.get(session, experiment_id)
    except NotFound as error:
        message = f"there is no experiment {experiment_id}"
        entry = {"field": "compare", "message": message, "value": experiment_id}
        raise InvalidRequest(f"{message} to compare with", errors=[entry]) from error


def _read_ids(text: str | None) -> list[int]:
    if text is None:
        return []
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not re.fullmatch(r"[1-9][0-9]{0,9}", word) or int(word) > MAX_ID]
    if wrong or len(words) > MAX_COMPARED:
        message = (
            f"'{wrong[0][:40]}' is not an experiment's id"
            if wrong
            else f"names {len(words)} experiments; {MAX_COMPARED} fit beside the first"
        )
        raise InvalidRequest(
            f"compare: {message}", fix="compare=7,9", errors=[{"field": "compare", "message": message}]
        )
    return [int(word) for word in words]
