"""Measures a study's additions once its rows have ended: runs combined to one score, and robustness.

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
NO_RUN = "the row has no run with a score"
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


def newest_robustness(session: Session, experiment_id: int) -> StudyAddition | None:
    """The newest addition in which an experiment was scored on corrupted images; None without one."""
    query = select(StudyAddition).where(
        StudyAddition.best_experiment == experiment_id,
        StudyAddition.key.startswith(f"{ROBUSTNESS}:"),
        StudyAddition.result.is_not(None),
    )
    return session.scalar(query.order_by(StudyAddition.study_id.desc(), StudyAddition.position).limit(1))


def advance(
    session: Session,
    study: Study,
    spec: StudySpec,
    rows: Sequence[RowRuns],
    read_scores: Callable[[], Mapping[int, Score]],
) -> bool:
    """Request measurements of what the study asks for, and collect results. Returns whether all are there."""
    known = additions_of(session, study.id)
    if not known:
        planned = _Planner(session, study.id, read_scores()).plan(spec, rows)
        known = [_begin(session, study, each, place) for place, each in enumerate(planned)]
    waits = [addition for addition in known if not _collect(session, addition)]
    return not waits


def forget(session: Session, study_id: int) -> None:
    """Drop the additions of a study that continues: they are measured again when its rows have ended."""
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
    """Copy finished measurements. Returns whether none is left to wait for."""
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


@dataclass(frozen=True)
class _Planner:
    """Plans what is to be measured."""

    session: Session
    study_id: int
    scores: Mapping[int, Score]

    def plan(self, spec: StudySpec, rows: Sequence[RowRuns]) -> Iterator[Planned]:
        """Everything that the study asks for, planned or with the reason why it cannot be measured."""
        scored = [RowRuns(row, [one for one in found if one.id in self.scores]) for row, found in rows]
        for combine in dict.fromkeys(spec.combine):
            for row, runs in scored:
                if combine is Combine.LAST_EPOCHS:
                    yield self._last_epochs(row, runs)
                elif row.repeats > 1:
                    yield self._seeds(combine, row, runs)
            if combine is Combine.ENSEMBLE and len(scored) > 1:
                yield self._all_rows(scored)
        if spec.robustness:
            for row, runs in scored:
                yield self._robustness(row, runs)

    def _seeds(self, combine: Combine, row: StudyRow, runs: Sequence[Experiment]) -> Planned:
        """The seeds of one row, averaged."""
        what = "Ensemble" if combine is Combine.ENSEMBLE else "Average of the weights"

        def title(count: int) -> str:
            return f"{what} of the {plural(count, 'run')} of {row.title}"

        return self._combination(combine, f"{combine.value}:{row.key}", title, runs, "")

    def _all_rows(self, rows: Sequence[RowRuns]) -> Planned:
        """The best run of each row, of those that were validated on the same images as the best of all."""
        best = [self._best(runs) for _, runs in rows if runs]
        images = self.scores[self._best(best).id].images if best else ""
        shared = [run for run in best if self.scores[run.id].images == images]
        others = [run for run in best if self.scores[run.id].images != images]

        def title(count: int) -> str:
            return f"Ensemble of the best runs of {plural(count, 'row')}"

        note = _left_out("validated on other images", others)
        return self._combination(Combine.ENSEMBLE, f"{Combine.ENSEMBLE.value}:", title, shared, note)

    def _combination(
        self, combine: Combine, key: str, title: Callable[[int], str], runs: Sequence[Experiment], note: str
    ) -> Planned:
        """Runs of which the files are there; a reason where there are not two of them."""
        ensemble = combine is Combine.ENSEMBLE
        kind = ArtifactKind.OUTPUTS_VALIDATION if ensemble else ArtifactKind.WEIGHTS_BEST
        found = [(run, artifacts.find(self.session, run.id, kind)) for run in runs]
        files = [_file(record) for _, record in found if record is not None]
        usable = [run for run, record in found if record is not None]
        what = "their predictions are not stored" if ensemble else "their weights are not stored"
        notes = [note, _left_out(what, [run for run, record in found if record is None])]
        if len(usable) < 2:
            notes.insert(0, f"it takes two runs, and there {'is one' if usable else 'is none'}")
            return Planned(key, title(len(usable)), usable, reason="; ".join(filter(None, notes)))
        question: CombinedQuestion = {"study": self.study_id, "combine": combine.value, "files": files}
        reason = "; ".join(filter(None, notes)) or None
        return Planned(key, title(len(usable)), usable, self._best(usable), question, reason)

    def _last_epochs(self, row: StudyRow, runs: Sequence[Experiment]) -> Planned:
        """The last kept epochs of a row's best run, averaged."""
        key, title = f"{Combine.LAST_EPOCHS.value}:{row.key}", f"Average of the last epochs of {row.title}"
        if not runs:
            return Planned(key, title, runs, reason=NO_RUN)
        best = self._best(runs)
        kept = artifacts.list_kind(self.session, best.id, ArtifactKind.WEIGHTS_EPOCH)
        chosen = kept[: min(MOST_EPOCHS, len(kept) // 2)]
        if len(chosen) < 2:
            epochs = plural(len(kept), "epoch")
            reason = f"experiment {best.id} keeps the weights of {epochs}, and it takes four or more"
            return Planned(key, title, [best], best, reason=reason)
        numbers = ", ".join(str(record.epoch) for record in reversed(chosen))
        files = [_file(record) for record in chosen]
        question: CombinedQuestion = {"study": self.study_id, "combine": Combine.LAST_EPOCHS.value, "files": files}
        return Planned(key, f"Average of the weights of epochs {numbers} of {row.title}", [best], best, question)

    def _robustness(self, row: StudyRow, runs: Sequence[Experiment]) -> Planned:
        key = f"{ROBUSTNESS}:{row.key}"
        if not runs:
            return Planned(key, row.title, runs, reason=NO_RUN)
        best = self._best(runs)
        record = artifacts.find(self.session, best.id, ArtifactKind.WEIGHTS_BEST)
        if record is None:
            return Planned(key, row.title, [best], best, reason=f"the weights of experiment {best.id} are not stored")
        question: RobustnessQuestion = {"study": self.study_id, "weights": _file(record)}
        return Planned(key, row.title, [best], best, question)

    def _best(self, runs: Sequence[Experiment]) -> Experiment:
        return max(runs, key=lambda run: (self.scores[run.id].accuracy, -run.id))


def _left_out(why: str, runs: Sequence[Experiment]) -> str:
    numbers = ", ".join(str(run.id) for run in runs)
    return f"left out, since {why}: {'experiments' if len(runs) > 1 else 'experiment'} {numbers}" if runs else ""


def _file(record: ArtifactRecord) -> StoredFile:
    return {"path": record.path, "sha256": record.sha256}
