"""Reads a study's additions to its trained rows: combined runs as rows, and robustness."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from models.errors import NotFound
from models.spec.parse import load_spec
from models.spec.study import Combine
from models.store import measurements
from models.store.states import MeasurementStatus
from models.store.study_additions import ROBUSTNESS, additions_of
from models.store.study_snapshot import StudySnapshot
from models.store.tables import StudyAddition
from models.studies.additions import Combined, Robustness, combined_sentence
from models.studies.comparison import Bools, Judgement, Score
from service.studies.documents import DifferenceDocument, RobustnessDocument, RowDocument, RowKind, SpreadDocument

WAITING, RUNNING, COMPLETED, FAILED, UNAVAILABLE = "waiting", "running", "completed", "failed", "unavailable"


def read_combined(session: Session, snapshot: StudySnapshot, scores: Mapping[int, Score]) -> list[Combined]:
    """The combinations of a study whose rows have ended."""
    keys = {row.position: row.key for row in snapshot.rows}
    rows = {run.experiment_id: keys[run.position] for run in snapshot.runs.values()}
    found = []
    for addition in additions_of(session, snapshot.study.id):
        kind = addition.key.partition(":")[0]
        if kind not in list(Combine):
            continue
        best = scores.get(addition.best_experiment or 0)
        known = [snapshot.experiments[number] for number in addition.experiment_ids if number in snapshot.experiments]
        found.append(
            Combined(
                key=addition.key,
                kind=kind,
                title=addition.title,
                status=_status(session, addition),
                experiment_ids=list(addition.experiment_ids),
                seeds=[int(one.spec["seed"]) for one in known],
                reason=addition.reason,
                score=_score(addition, best),
                best_id=addition.best_experiment,
                best_row=rows.get(addition.best_experiment),
                best=best,
                shares_start=bool(known) and load_spec(known[0].spec).model.starts_pretrained,
            )
        )
    return found


def read_robustness(session: Session, snapshot: StudySnapshot) -> list[Robustness]:
    """The robustness of a study's rows."""
    found = additions_of(session, snapshot.study.id)
    return [robustness_of(session, addition) for addition in found if addition.key.startswith(f"{ROBUSTNESS}:")]


def robustness_of(session: Session, addition: StudyAddition) -> Robustness:
    """The robustness of one row."""
    result: dict[str, Any] = addition.result or {}
    return Robustness(
        row=addition.key.partition(":")[2],
        title=addition.title,
        status=_status(session, addition),
        experiment_id=addition.best_experiment,
        reason=addition.reason,
        num_images=result.get("num_images", 0),
        clean=result.get("clean"),
        accuracy=result.get("accuracy", {}),
        parameters=result.get("parameters", {}),
        parameters_of=result.get("parameters_of", ""),
    )


def _status(session: Session, addition: StudyAddition) -> str:
    if addition.result is not None:
        return COMPLETED
    if addition.measurement is None:
        return UNAVAILABLE
    try:
        found = measurements.get(session, addition.measurement)
    except NotFound:
        return FAILED
    return RUNNING if found.status is MeasurementStatus.RUNNING else WAITING


def _score(addition: StudyAddition, best: Score | None) -> Score | None:
    """The score of a combination, on the images of the best of its runs."""
    result: dict[str, Any] | None = addition.result
    if result is None:
        return None
    right = _bits(str(result["right"]), int(result["num_images"]))
    images = best.images if best is not None else ""
    seed = best.seed if best is not None else 0
    return Score(seed, float(result["accuracy"]), int(result["num_images"]), right, images)


def _bits(text: str, count: int) -> Bools | None:
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error:
        return None
    bits = np.unpackbits(packed)[:count].astype(bool)
    return bits if len(bits) == count else None


def combined_row(one: Combined) -> RowDocument:
    """A combination as a row of its own."""
    accuracy = None if one.score is None else one.score.accuracy
    spread = None
    if accuracy is not None:
        spread = SpreadDocument(mean=accuracy, deviation=None, lowest=accuracy, highest=accuracy, count=1)
    return RowDocument(
        key=one.key,
        kind=RowKind(one.kind),
        title=one.title,
        question="",
        status=one.status,
        reason=one.reason,
        experiment_ids=list(one.experiment_ids),
        seeds=list(one.seeds),
        val_accuracy=spread,
        test_accuracy=None,
        published=None,
        difference=_difference(one),
        shortened=None,
        seconds=0.0,
        joules=None,
        epochs=None,
        spec=None,
    )


def _difference(one: Combined) -> DifferenceDocument | None:
    found = one.difference
    if found is None:
        return None
    return DifferenceDocument(
        baseline=one.best_row or "",
        points=round(100 * found.value, 3),
        interval=(round(100 * found.low, 3), round(100 * found.high, 3)),
        method=found.method.value,
        p_value=found.p_value,
        p_adjusted=found.p_value,
        judgement=found.judgement.value,
        alike=True,
        is_noise=found.judgement is Judgement.NOISE,
        sentence=combined_sentence(one),
    )


def robustness_document(one: Robustness) -> RobustnessDocument:
    """A row's robustness."""
    return RobustnessDocument(**vars(one), mean=one.mean)
