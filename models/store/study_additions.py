"""What a study asks for beside its rows, once they have ended: runs combined to one score, and robustness.

Workers measure each of them as they make dry runs. `advance` has that done, and keeps the results with the study.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.errors import NotFound
from models.measurements import CombinedQuestion, RobustnessQuestion, StoredFile
from models.spec.parse import load_spec
from models.spec.study import Combine, StudySpec
from models.store import artifacts, measurements
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind, MeasurementKind, MeasurementStatus
from models.store.tables import Experiment, Study, StudyAddition, StudyRow
from models.studies.comparison import Score
from models.text import plural

ROBUSTNESS = "robustness"
MOST_EPOCHS = 10
"""Weights of epochs that are averaged at most; of those that are kept, the last half."""


class RowRuns(NamedTuple):
    """A row with the experiments of its runs."""

    row: StudyRow
    experiments: Sequence[Experiment]


@dataclass(frozen=True)
class Planned:
    """One thing to measure, or the reason why it cannot be."""

    key: str
    title: str
    runs: Sequence[Experiment]
    best: Experiment | None = None
    question: CombinedQuestion | RobustnessQuestion | None = None
    reason: str | None = None


def additions_of(session: Session, study_id: int) -> list[StudyAddition]:
    """A study's additions in order."""
    query = select(StudyAddition).where(StudyAddition.study_id == study_id).order_by(StudyAddition.position)
    return list(session.scalars(query))


def advance(
    session: Session,
    study: Study,
    spec: StudySpec,
    rows: Sequence[RowRuns],
    read_scores: Callable[[], Mapping[int, Score]],
) -> bool:
    """Have measured what the study asks for, of rows that have ended. Returns whether all of it is there."""
    known = additions_of(session, study.id)
    if not known:
        planned = _plan(session, study.id, spec, rows, read_scores())
        known = [_begin(session, study, each, place) for place, each in enumerate(planned)]
    waits = [addition for addition in known if not _collect(session, addition)]
    return not waits


def forget(session: Session, study_id: int) -> None:
    """Drop the additions of a study that goes on: they are measured again when its rows have ended."""
    for addition in additions_of(session, study_id):
        session.delete(addition)


def _begin(session: Session, study: Study, planned: Planned, position: int) -> StudyAddition:
    measurement = None
    if planned.question is not None:
        kind = MeasurementKind.COMBINED if "combine" in planned.question else MeasurementKind.ROBUSTNESS
        first = load_spec(planned.runs[0].spec)
        measurement = measurements.create(session, kind, first, planned.question, owner=study.owner).id
    addition = StudyAddition(
        study_id=study.id,
        key=planned.key,
        position=position,
        title=planned.title,
        experiment_ids=[one.id for one in planned.runs],
        best_experiment=None if planned.best is None else planned.best.id,
        measurement=measurement,
        reason=planned.reason,
    )
    session.add(addition)
    session.flush()
    return addition


def _collect(session: Session, addition: StudyAddition) -> bool:
    """Copy what was measured. Returns whether there is nothing more to wait for."""
    if addition.measurement is None or addition.result is not None:
        return True
    try:
        found = measurements.get(session, addition.measurement)
    except NotFound:
        addition.measurement, addition.reason = None, "its measurement was removed before it was read"
        return True
    if found.status is MeasurementStatus.COMPLETED:
        addition.result = found.result
    elif found.status is MeasurementStatus.FAILED:
        addition.measurement, addition.reason = None, found.reason
    else:
        return False
    return True


def _plan(
    session: Session, study_id: int, spec: StudySpec, rows: Sequence[RowRuns], scores: Mapping[int, Score]
) -> Iterator[Planned]:
    scored = [RowRuns(row, [one for one in found if one.id in scores]) for row, found in rows]
    for combine in dict.fromkeys(spec.combine):
        for one in scored:
            if combine is Combine.LAST_EPOCHS:
                yield _last_epochs(session, study_id, one, scores)
            else:
                yield from _seeds(session, study_id, combine, one, scores)
        if combine is Combine.ENSEMBLE and len(scored) > 1:
            yield _all_rows(session, study_id, scored, scores)
    if spec.robustness:
        for one in scored:
            yield _robustness(session, study_id, one, scores)


def _best(runs: Sequence[Experiment], scores: Mapping[int, Score]) -> Experiment:
    return max(runs, key=lambda run: (scores[run.id].accuracy, -run.id))


def _seeds(
    session: Session, study_id: int, combine: Combine, one: RowRuns, scores: Mapping[int, Score]
) -> Iterator[Planned]:
    """The seeds of one row, averaged; nothing for a row that was to have a single seed."""
    row, runs = one
    if row.repeats < 2:
        return
    what = "Ensemble" if combine is Combine.ENSEMBLE else "Average of the weights"
    title = f"{what} of the {plural(len(runs), 'run')} of {row.title}"
    kind = ArtifactKind.OUTPUTS_VALIDATION if combine is Combine.ENSEMBLE else ArtifactKind.WEIGHTS_BEST
    yield _combination(session, study_id, combine, f"{combine.value}:{row.key}", title, runs, kind, scores)


def _all_rows(session: Session, study_id: int, rows: Sequence[RowRuns], scores: Mapping[int, Score]) -> Planned:
    """The best run of each row, of those that were validated on the same images as the best of all."""
    best = [_best(runs, scores) for _, runs in rows if runs]
    shared, others = list(best), []
    if best:
        images = scores[_best(best, scores).id].images
        shared = [run for run in best if scores[run.id].images == images]
        others = [str(run.id) for run in best if scores[run.id].images != images]
    title = f"Ensemble of the best runs of {plural(len(shared), 'row')}"
    left_out = f"left out, since validated on other images: experiments {', '.join(others)}" if others else None
    key, kind = f"{Combine.ENSEMBLE.value}:", ArtifactKind.OUTPUTS_VALIDATION
    return _combination(session, study_id, Combine.ENSEMBLE, key, title, shared, kind, scores, left_out)


def _combination(
    session: Session,
    study_id: int,
    combine: Combine,
    key: str,
    title: str,
    runs: Sequence[Experiment],
    kind: ArtifactKind,
    scores: Mapping[int, Score],
    note: str | None = None,
) -> Planned:
    if len(runs) < 2:
        reason = f"it takes two runs with a score, and there {'is one' if runs else 'is none'}"
        return Planned(key, title, runs, reason="; ".join(filter(None, (reason, note))))
    best = _best(runs, scores)
    if len({scores[run.id].images for run in runs}) > 1:
        return Planned(key, title, runs, best, reason="its runs were validated on different images")
    found = [(run, artifacts.find(session, run.id, kind)) for run in runs]
    missing = [str(run.id) for run, record in found if record is None]
    if missing:
        what = "answers on the validation images" if kind is ArtifactKind.OUTPUTS_VALIDATION else "weights"
        return Planned(key, title, runs, best, reason=f"no {what} are kept of experiments {', '.join(missing)}")
    files = [_file(record) for _, record in found if record is not None]
    question: CombinedQuestion = {"study": study_id, "combine": combine.value, "files": files}
    return Planned(key, title, runs, best, question, note)


def _last_epochs(session: Session, study_id: int, one: RowRuns, scores: Mapping[int, Score]) -> Planned:
    """The last kept epochs of a row's best run, averaged."""
    row, runs = one
    key = f"{Combine.LAST_EPOCHS.value}:{row.key}"
    title = f"Average of the last epochs of {row.title}"
    if not runs:
        return Planned(key, title, runs, reason="the row has no run with a score")
    best = _best(runs, scores)
    kept = artifacts.list_kind(session, best.id, ArtifactKind.WEIGHTS_EPOCH)
    chosen = kept[: min(MOST_EPOCHS, len(kept) // 2)]
    if len(chosen) < 2:
        reason = f"experiment {best.id} keeps the weights of {plural(len(kept), 'epoch')}, and it takes four or more"
        return Planned(key, title, [best], best, reason=reason)
    numbers = ", ".join(str(record.epoch) for record in reversed(chosen))
    files = [_file(record) for record in chosen]
    question: CombinedQuestion = {"study": study_id, "combine": Combine.LAST_EPOCHS.value, "files": files}
    return Planned(key, f"Average of the weights of epochs {numbers} of {row.title}", [best], best, question)


def _robustness(session: Session, study_id: int, one: RowRuns, scores: Mapping[int, Score]) -> Planned:
    row, runs = one
    key, title = f"{ROBUSTNESS}:{row.key}", row.title
    if not runs:
        return Planned(key, title, runs, reason="the row has no run with a score")
    best = _best(runs, scores)
    record = artifacts.find(session, best.id, ArtifactKind.WEIGHTS_BEST)
    if record is None:
        return Planned(key, title, [best], best, reason=f"no weights are kept of experiment {best.id}")
    question: RobustnessQuestion = {"study": study_id, "weights": _file(record)}
    return Planned(key, title, [best], best, question)


def _file(record: ArtifactRecord) -> StoredFile:
    return {"path": record.path, "sha256": record.sha256}
