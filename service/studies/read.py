"""Reads a study for JSON, pictures and its report: rows with runs, scores and differences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sqlalchemy.orm import Session

from models.curves.metrics import EpochMetrics
from models.findings import VerdictJson
from models.measurements import SweepResult
from models.spec.parse import load_spec
from models.spec.study import Published
from models.store import Status, history, measurements, runs
from models.store.states import MeasurementStatus, StudyState, StudyStatus
from models.store.study_costs import seconds_in
from models.store.study_progress import seconds_left
from models.store.study_search import is_pruned, trials_left
from models.store.study_snapshot import StudySnapshot
from models.store.tables import Experiment, Study, StudyRow
from models.studies.comparison import Judgement, Score
from models.studies.results import (
    RowResult,
    RunResult,
    StudyResult,
    difference_sentence,
    with_differences,
)
from service.studies.additions import combined_row, read_combined, read_robustness, robustness_document
from service.studies.documents import (
    DifferenceDocument,
    RowDocument,
    RowKind,
    SpreadDocument,
    StudyDocument,
    StudyItem,
    StudyProgress,
    links_of,
)
from service.studies.search import describe_search, read_search

WAITING, SKIPPED, DELETED, PRUNED = "waiting", "skipped", "deleted", "pruned"
ORDER = (Status.RUNNING, Status.QUEUED, Status.FAILED, Status.CANCELLED, Status.DIVERGED, Status.COMPLETED)
"""The status of a row is the first of these that one of its runs has."""


def read_result(session: Session, study: Study, experiments_dir: Path) -> StudyResult:
    """The study with its rows, runs, scores and differences."""
    return _result_of(session, StudySnapshot.read(session, study), experiments_dir)


def _result_of(session: Session, snapshot: StudySnapshot, experiments_dir: Path) -> StudyResult:
    study = snapshot.study
    found = list(snapshot.experiments.values())
    scores = snapshot.scores(session, experiments_dir)
    numbers = [row.id for row in found]
    histories, spans = history.read_many(session, numbers), runs.spans_of(session, numbers)
    rows = []
    for row in snapshot.rows:
        made = snapshot.of_row(row)
        results = [_run(one, scores.get(one.id), histories[one.id], spans[one.id]) for one in made]
        spec = made[0].spec if made else row.planned or row.spec
        rows.append(
            RowResult(
                key=row.key,
                title=row.title,
                question=row.question,
                baseline=row.baseline,
                spec=load_spec(spec),
                full=load_spec(row.spec),
                runs=results,
                status=status_of_row(row, made, is_deleted=snapshot.is_deleted(row)),
                reason=row.reason,
                published=None if row.published is None else Published(**row.published),
                shortened=row.shortened or "",
                images=row.images,
                params=row.params,
                pruned=bool(made) and is_pruned(made[0]),
            )
        )
    return StudyResult(
        id=study.id,
        title=study.title,
        question=snapshot.spec.question,
        status=status_of(study, snapshot).value,
        spec=snapshot.spec,
        rows=with_differences(rows),
        reason=study.reason,
        budget_seconds=snapshot.spec.budget_seconds,
        spent_seconds=study.spent_seconds,
        lr_tests=_lr_tests(session, snapshot.rows),
        combined=read_combined(session, snapshot, scores),
        robustness=read_robustness(session, snapshot),
        search=read_search(session, snapshot),
    )


def _run(
    row: Experiment,
    score: Score | None,
    epochs: Sequence[EpochMetrics],
    attempts: Sequence[runs.Span],
) -> RunResult:
    environment = row.environment or {}
    test: dict[str, Any] = dict(row.test or {})
    return RunResult(
        experiment_id=row.id,
        status=row.status.value,
        seed=int(row.spec["seed"]),
        epochs=int(row.spec["epochs"]),
        history=epochs,
        reason=row.reason,
        verdict=_verdict(row),
        score=score,
        test_accuracy=test.get("accuracy"),
        seconds=seconds_in(attempts),
        joules=joules if isinstance(joules := environment.get("joules"), int | float) else None,
        device=f"{environment['device']}, {environment.get('cores')} cores" if environment.get("device") else "",
    )


def _verdict(row: Experiment) -> VerdictJson | None:
    """The stored verdict; None for one of an unknown form, from another version or an untrusted backup."""
    verdict: Any = row.verdict
    known = isinstance(verdict, dict) and isinstance(verdict.get("summary"), str)
    if not known or not isinstance(verdict.get("findings"), list) or not isinstance(verdict.get("best_epoch"), dict):
        return None
    findings, parts = verdict["findings"], {"epoch", "as_good", "stands_out"}
    fine = all(isinstance(one, dict) and isinstance(one.get("sentence"), str) and "code" in one for one in findings)
    best = [verdict["best_epoch"].get(name) for name in ("by_accuracy", "by_loss")]
    fine = fine and all(one is None or (isinstance(one, dict) and parts <= one.keys()) for one in best)
    return verdict if fine else None


def _lr_tests(session: Session, rows: Sequence[StudyRow]) -> dict[str, SweepResult]:
    found = {}
    for row in rows:
        if row.learning_rate_test is not None:
            measured = measurements.get(session, row.learning_rate_test)
            if measured.status is MeasurementStatus.COMPLETED and measured.result:
                found[row.key] = cast(SweepResult, measured.result)
    return found


def status_of_row(row: StudyRow, made: Sequence[Experiment], *, is_deleted: bool = False) -> str:
    """The status of a row, from those of its runs."""
    if is_deleted and not made:
        return DELETED
    if row.reason is not None and not made:
        return SKIPPED
    if len(made) < row.repeats and not is_deleted and not any(one.status is Status.RUNNING for one in made):
        return WAITING
    if row.params is not None and made and is_pruned(made[0]):
        return PRUNED
    return min((one.status for one in made), key=ORDER.index).value if made else WAITING


def status_of(study: Study, snapshot: StudySnapshot) -> StudyStatus:
    """The study's status: a running one that has only queued runs is queued."""
    if study.state is not StudyState.RUNNING:
        return StudyStatus(study.state.value)
    begun = any(one.status is not Status.QUEUED for one in snapshot.experiments.values())
    return StudyStatus.RUNNING if begun else StudyStatus.QUEUED


def describe(session: Session, study: Study, experiments_dir: Path) -> StudyDocument:
    """The study's complete document."""
    session.flush()
    snapshot = StudySnapshot.read(session, study)
    result = _result_of(session, snapshot, experiments_dir)
    return StudyDocument(
        **_item_members(session, study, snapshot),
        baseline=None if result.baseline is None else result.baseline.key,
        rows=[_row_document(row, result) for row in result.rows] + [combined_row(one) for one in result.combined],
        robustness=[robustness_document(one) for one in result.robustness],
        search=describe_search(result.search, result.rows),
        spec=study.spec,
    )


def describe_item(session: Session, study: Study) -> StudyItem:
    """A study as lists show it."""
    return StudyItem(**_item_members(session, study, StudySnapshot.read(session, study, brief=True)))


def _item_members(session: Session, study: Study, snapshot: StudySnapshot) -> dict[str, Any]:
    return {
        "id": study.id,
        "title": study.title,
        "question": snapshot.spec.question,
        "status": status_of(study, snapshot).value,
        "reason": study.reason,
        "created_at": study.created_at,
        "finished_at": study.finished_at,
        "budget_seconds": snapshot.spec.budget_seconds,
        "spent_seconds": round(study.spent_seconds, 1),
        "progress": _progress(session, snapshot),
        "links": links_of(study.id, is_search=snapshot.spec.search is not None),
    }


def _progress(session: Session, snapshot: StudySnapshot) -> StudyProgress:
    total = sum(row.repeats for row in snapshot.rows if row.reason is None or snapshot.of_row(row))
    total += trials_left(snapshot) if snapshot.study.state.active else 0
    made = [one for row in snapshot.rows for one in snapshot.of_row(row)]
    ended = sum(one.status.terminal for one in made)
    done = 0.0
    for one in made:
        if one.status.terminal:
            done += 1
        elif one.status is Status.RUNNING and one.progress and one.progress.get("epochs"):
            within = (one.progress["step"] or 0) / one.progress["steps"] if one.progress["steps"] else 0.0
            done += max(0.0, min(1.0, (max(one.progress["epoch"], 1) - 1 + within) / one.progress["epochs"]))
    left = seconds_left(session, snapshot)
    return StudyProgress(
        runs=total,
        ended=ended,
        running=sum(one.status is Status.RUNNING for one in made),
        fraction=round(done / total, 4) if total else 0.0,
        seconds_left=None if left is None else round(left, 1),
    )


def _row_document(row: RowResult, study: StudyResult) -> RowDocument:
    spread, tests = row.spread, [run.test_accuracy for run in row.runs if run.test_accuracy is not None]
    joules = [run.joules for run in row.runs if run.joules is not None]
    return RowDocument(
        key=row.key,
        kind=RowKind.TRAINED,
        title=row.title,
        question=row.question,
        status=row.status,
        reason=row.reason or next((run.reason for run in row.runs if run.reason), None),
        experiment_ids=[run.experiment_id for run in row.runs],
        seeds=[run.seed for run in row.runs],
        val_accuracy=None if spread is None else SpreadDocument(**vars(spread)),
        test_accuracy=sum(tests) / len(tests) if tests else None,
        published=row.published,
        difference=_difference(row, study),
        shortened=row.shortened or None,
        seconds=round(row.seconds, 1),
        joules=sum(joules) if joules else None,
        epochs=row.spec.epochs,
        epochs_run=len(row.first.history) if row.first else None,
        params=row.params,
        pruned=row.pruned,
        spec=row.spec.as_json(),
    )


def _difference(row: RowResult, study: StudyResult) -> DifferenceDocument | None:
    baseline = study.row(row.baseline) if row.baseline else None
    found = row.difference
    if found is None or baseline is None:
        return None
    return DifferenceDocument(
        baseline=baseline.key,
        points=round(100 * found.value, 3),
        interval=(round(100 * found.low, 3), round(100 * found.high, 3)),
        method=found.method.value,
        p_value=found.p_value,
        p_adjusted=found.p_value if found.adjusted_p is None else found.adjusted_p,
        judgement=found.judgement.value,
        alike=row.is_alike(baseline),
        is_noise=found.judgement is Judgement.NOISE,
        sentence=difference_sentence(row, baseline),
    )
