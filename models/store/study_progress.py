"""Advances a study: dry runs, then its runs, then more seeds or additions. Workers call it periodically.

A step reads the state from the database and does what is due in the same transaction, and any worker may repeat it. So
a study continues after any restart.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.errors import EpochalError
from models.measurements import LearningRateRange
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from models.spec.rows import load_study, with_seed
from models.spec.study import MAX_SEEDS, StudySpec
from models.store import experiments, history, measurements, runs, studies, study_additions
from models.store.columns import now
from models.store.rows import touch
from models.store.states import MeasurementKind, MeasurementStatus, Status, StudyState
from models.store.study_additions import RowRuns
from models.store.study_costs import (
    cost_key,
    measured_spec,
    seconds_in,
    seconds_left_of,
    wall_seconds,
    was_interrupted,
    works_of,
)
from models.store.study_scores import read_scores
from models.store.study_search import advance_search, is_pruned, trials_left
from models.store.tables import Experiment, Study, StudyRow, StudyRun
from models.studies.budget import (
    MARGIN,
    SMALLEST,
    SPARE,
    Length,
    Work,
    by_urgency,
    describe_shortening,
    first_fit,
    full_length,
    refit,
    seconds_of,
    shorten,
    shortened,
    val_limit_at,
)
from models.studies.comparison import Score, compare_rows
from models.studies.images import split_sizes
from models.text import duration, plural

LONGEST_TICK_SECONDS = 10.0
"""A longer pause between two calls means that the lab was stopped; it is not counted as the study's time."""
OVERTIME = 1.08
"""Runs that are still going on after this multiple of the budget are ended."""
WAITING = (MeasurementStatus.QUEUED, MeasurementStatus.RUNNING)


@dataclass
class Progress:
    """A study with its rows, runs and experiments, as read in this transaction."""

    study: Study
    spec: StudySpec
    rows: list[StudyRow]
    runs: dict[tuple[int, int], StudyRun]
    experiments: dict[int, Experiment]

    @classmethod
    def read(cls, session: Session, study: Study, *, brief: bool = False) -> "Progress":
        """Read a study; `brief` for how far it is."""
        runs = studies.runs_of(session, study.id)
        return cls(
            study,
            load_study(study.spec),
            studies.rows_of(session, study.id, brief=brief),
            {(run.position, run.repeat): run for run in runs},
            studies.experiments_of(session, runs, brief=brief),
        )

    def experiment(self, position: int, repeat: int) -> Experiment | None:
        """The experiment of one run, if it has begun and was not deleted."""
        run = self.runs.get((position, repeat))
        return None if run is None or run.experiment_id is None else self.experiments.get(run.experiment_id)

    def of_row(self, row: StudyRow) -> list[Experiment]:
        """The experiments of a row, by seed."""
        found = [self.experiment(row.position, repeat) for repeat in range(row.repeats)]
        return [experiment for experiment in found if experiment is not None]

    def is_deleted(self, row: StudyRow) -> bool:
        """Whether an experiment of a row was deleted; resuming the study makes it again."""
        return any(run.experiment_id is None and run.position == row.position for run in self.runs.values())

    def missing(self) -> list[tuple[StudyRow, int]]:
        """Runs that have not begun."""
        return [
            (row, repeat)
            for row in self.rows
            if row.reason is None
            for repeat in range(row.repeats)
            if (row.position, repeat) not in self.runs
        ]

    def scores(self, session: Session, experiments_dir: Path) -> dict[int, Score]:
        """The scores of its experiments, by id."""
        images = {one.id: row.images for row in self.rows for one in self.of_row(row)}
        found = [one for one in self.experiments.values() if one.id in images]

        def val_images(one: Experiment) -> int:
            return split_sizes(load_spec(one.spec), images[one.id])[1]

        return read_scores(session, experiments_dir, found, val_images)

    @property
    def unfinished(self) -> list[Experiment]:
        """Experiments that wait or run."""
        return [found for found in self.experiments.values() if not found.status.terminal]


def advance(session: Session, study_id: int, experiments_dir: Path, *, parallel: int = 1) -> list[int]:
    """Do what is due for a study. Returns new experiments, to be enqueued after the commit."""
    study = studies.get(session, study_id)
    if not study.state.active:
        return []
    progress = Progress.read(session, study)
    _tick(study)
    if progress.spec.search is not None:
        return _advance_search(session, progress, parallel)
    _test_learning_rates(session, progress)
    if study.state is StudyState.MEASURING and not _measure(session, progress, parallel):
        return []
    created = _begin(session, progress, parallel)
    if not created and not progress.unfinished and not progress.missing() and not _tests_wait(session, progress):
        if _more_seeds(session, progress, experiments_dir) or _spend_rest(session, progress, parallel):
            created = _begin(session, progress, parallel)
        elif _add(session, progress, experiments_dir):
            _complete(session, study, progress)
    elif len(progress.unfinished) < parallel and not progress.missing() and _spend_rest(session, progress, parallel):
        created += _begin(session, progress, parallel)
    return created


def _advance_search(session: Session, progress: Progress, parallel: int) -> list[int]:
    """Begin trials until there are enough of them, the budget is used up, or no other one is left."""
    budget = progress.spec.budget_seconds
    if budget is not None and progress.study.spent_seconds > OVERTIME * budget:
        _end_overtime(session, progress)

    def start(row: StudyRow, repeat: int) -> int | None:
        return _start(session, progress, row, repeat, None)

    created = advance_search(session, progress, parallel, start)
    if not created and not progress.unfinished and not progress.missing() and not trials_left(progress):
        _complete(session, progress.study, progress)
    return created


def _tick(study: Study) -> None:
    """Count the time since a worker last looked. Clocks of two machines may differ: no step counts for long."""
    moment = now()
    if study.ticked_at is not None:
        elapsed = (moment - study.ticked_at).total_seconds()
        study.spent_seconds += min(max(elapsed, 0.0), LONGEST_TICK_SECONDS)
    study.ticked_at = moment
    studies.touch(study)


def _add(session: Session, progress: Progress, experiments_dir: Path) -> bool:
    """Measure the study's additions: combined runs, robustness. Returns whether all results are there."""
    if not progress.spec.combine and not progress.spec.robustness:
        return True
    rows = [RowRuns(row, progress.of_row(row)) for row in progress.rows]
    return study_additions.advance(
        session, progress.study, progress.spec, rows, lambda: progress.scores(session, experiments_dir)
    )


def _complete(session: Session, study: Study, progress: Progress) -> None:
    ended = [found.status for found in progress.experiments.values()]
    if not progress.rows or any(status in (Status.COMPLETED, Status.DIVERGED) for status in ended):
        return studies.end(session, study, StudyState.COMPLETED)
    reasons = [row.reason for row in progress.rows if row.reason]
    reasons += [found.reason for found in progress.experiments.values() if found.reason]
    reason = f"no row could be run: {reasons[0] if reasons else 'all runs were ended'}"
    return studies.end(session, study, StudyState.FAILED, reason)


# dry runs and the budget


def _measure(session: Session, progress: Progress, parallel: int) -> bool:
    """Request dry runs, one for each kind of row. Returns whether all have ended and the plan is made."""
    study = progress.study
    known: dict[str, int] = {}
    for row in progress.rows:
        spec = measured_spec(row)
        key = cost_key(spec)
        if row.measurement is None:
            row.measurement = (
                known.get(key)
                or measurements.create(
                    session, MeasurementKind.PREFLIGHT, spec, {"study": study.id}, owner=study.owner
                ).id
            )
        known[key] = row.measurement
    found = [measurements.get(session, number) for number in dict.fromkeys(known.values())]
    if any(one.status in WAITING for one in found) or _tests_wait(session, progress):
        return False
    _leave_out(session, progress)
    budget = progress.spec.budget_seconds
    assert budget is not None
    works = works_of(session, progress.rows, progress.of_row, progress.missing())
    scale = first_fit(works, budget, study.spent_seconds, parallel=parallel)
    if scale == 0.0:
        shortest = sum(seconds_of(work, shortened(work, SMALLEST)) * work.runs for work in works) / parallel
        needed = study.spent_seconds + shortest / MARGIN
        reason = (
            f"a budget of {duration(budget)} is too little for one epoch of a thousand images a row: "
            f"{plural(sum(work.runs for work in works), 'run')} take about {duration(needed)} here; "
            f"give at least {_round_up(needed)}"
        )
        studies.end(session, study, StudyState.FAILED, reason)
        return False
    whole = max((work.val_images for work in works), default=0)
    study.plan = {"scale": scale, "val_limit": val_limit_at(scale, whole), "budget_seconds": budget}
    study.state = StudyState.RUNNING
    studies.touch(study)
    return True


def _leave_out(session: Session, progress: Progress) -> None:
    """Mark rows whose dry run failed as not to be run, since the run would fail in the same way."""
    for row in progress.rows:
        found = None if row.measurement is None else measurements.get(session, row.measurement)
        if found is not None and found.status is MeasurementStatus.FAILED and not was_interrupted(found):
            row.reason = found.reason


def _round_up(seconds: float) -> str:
    minutes = -(-int(seconds * 1.15 + 1) // 60)
    return f"{minutes}m"


# runs


def _begin(session: Session, progress: Progress, parallel: int) -> list[int]:
    """Begin runs: all of them without a budget, else as many as there are workers."""
    missing = progress.missing()
    if progress.study.plan is None:
        return [made for row, repeat in missing if (made := _start(session, progress, row, repeat, None))]
    budget = float(progress.study.plan["budget_seconds"])
    if progress.study.spent_seconds > OVERTIME * budget:
        _end_overtime(session, progress)
        missing = []
    if not missing or len(progress.unfinished) >= parallel:
        return []
    works = {work.key: work for work in works_of(session, progress.rows, progress.of_row, missing)}
    plan = progress.study.plan
    left = MARGIN * budget - progress.study.spent_seconds
    shared = left - sum(min(each, left) for each in _busy_seconds(session, progress)) / parallel
    most = float(plan.get("most") or plan["scale"])
    scale = refit(list(works.values()), shared, plan["scale"], most, parallel=parallel, val_limit=plan["val_limit"])
    if scale != plan["scale"]:
        progress.study.plan = {**plan, "scale": scale, "most": most}
    lengths = {key: shortened(work, scale, plan["val_limit"]) for key, work in works.items()}
    lasting = [((row, repeat), seconds_of(works[row.key], lengths[row.key])) for row, repeat in missing]
    created = []
    for row, repeat in by_urgency(lasting, left)[: parallel - len(progress.unfinished)]:
        work, length = works[row.key], lengths[row.key]
        if repeat and row.planned is not None:  # seeds of a row are of one length
            length = _length_of(load_spec(row.planned), row)
        if made := _start(session, progress, row, repeat, (work, length)):
            created.append(made)
    return created


def _busy_seconds(session: Session, progress: Progress) -> list[float]:
    """What each run that has begun and not ended still takes."""
    rows = {row.position: row for row in progress.rows}
    going = {
        run.experiment_id: rows[run.position]
        for run in progress.runs.values()
        if (one := progress.experiment(run.position, run.repeat)) is not None and not one.status.terminal
    }
    pairs = [(row, 0) for row in going.values()]
    works = {work.key: work for work in works_of(session, progress.rows, progress.of_row, pairs)}
    return [seconds_left_of(session, one, going[one.id], works[going[one.id].key]) for one in progress.unfinished]


def _length_of(spec: ExperimentSpec, row: StudyRow) -> Length:
    train, val, _ = split_sizes(spec, row.images)
    return Length(spec.epochs, train, val)


def _end_overtime(session: Session, progress: Progress) -> None:
    """End a study whose time is over: its runs are stopped with their results so far, rows without a run are marked."""
    for experiment in progress.unfinished:
        run = next(run for run in progress.runs.values() if run.experiment_id == experiment.id)
        if run.own and not experiment.cancel_requested:
            experiments.request_cancel(session, experiment.id)
    for row, _ in progress.missing():
        if not progress.of_row(row):
            row.reason = "the budget was used up before it could begin"
        else:
            row.repeats = len(progress.of_row(row))


def _start(
    session: Session, progress: Progress, row: StudyRow, repeat: int, plan: tuple[Work, Length] | None
) -> int | None:
    """Begin one run: find an experiment with the same spec, or make one. Returns the id of one that is new."""
    spec = load_spec(row.spec)
    try:
        if plan is not None:
            work, length = plan
            full = full_length(work)
            spec = shorten(spec, length, full, row.when_shortened)
            if row.planned is None:
                row.shortened = (
                    describe_shortening(load_spec(row.spec), length, full, seconds_of(work, full), row.when_shortened)
                    or None
                )
                row.planned = spec.as_json()
        spec = with_seed(spec, progress.spec.seed_of(spec.seed, repeat))
    except EpochalError as error:
        row.reason = error.detail
        return None
    shared = _find_shared(session, spec)
    own = shared is None
    if shared is not None:
        touch(shared)  # its document names its studies
    experiment = shared or experiments.create(
        session, spec, layers=row.layers, warnings=row.warnings, owner=progress.study.owner
    )
    run = StudyRun(study_id=row.study_id, position=row.position, repeat=repeat, experiment_id=experiment.id, own=own)
    session.add(run)
    session.flush()
    progress.runs[row.position, repeat] = run
    progress.experiments[experiment.id] = experiment
    studies.touch(progress.study)
    return experiment.id if own else None


def _find_shared(session: Session, spec: ExperimentSpec) -> Experiment | None:
    """An experiment with the same spec that has run in full or diverged, runs or waits, in this order of preference.

    One that continues another began with fewer epochs in its spec, by which its schedule was another one.
    """
    usable = (Status.COMPLETED, Status.DIVERGED, Status.RUNNING, Status.QUEUED)
    query = select(Experiment).where(
        Experiment.spec_digest == spec.digest(), Experiment.status.in_(usable), ~history.has_copied_epochs()
    )
    found = [
        row
        for row in session.scalars(query.order_by(Experiment.id))
        if not row.cancel_requested and row.stop_requested is None and not is_pruned(row)
    ]
    return min(found, key=lambda row: usable.index(row.status), default=None)


# more seeds


def _more_seeds(session: Session, progress: Progress, experiments_dir: Path) -> bool:
    """Add a seed to rows whose difference is not known well enough yet, and to their baselines."""
    wanted = progress.spec.repeat_until
    if wanted is None:
        return False
    scores = progress.scores(session, experiments_dir)
    by_key = {row.key: row for row in progress.rows}

    of_row = {row.key: [scores[one.id] for one in progress.of_row(row) if one.id in scores] for row in progress.rows}
    differences = compare_rows(of_row, {row.key: row.baseline for row in progress.rows})
    more: set[str] = set()
    for row in progress.rows:
        found = differences[row.key]
        if row.baseline is None or found is None or row.repeats >= wanted.max_seeds:
            continue
        if 100 * found.half_width > wanted.points:
            more |= {row.key, row.baseline}
    for key in more:
        row = by_key[key]
        partners = [other.repeats for other in progress.rows if other.key in more]
        row.repeats = min(wanted.max_seeds, max(row.repeats + 1, min(partners) + 1))
    return bool(more)


def _spend_rest(session: Session, progress: Progress, parallel: int) -> bool:
    """Spend what is left of a budget on more seeds: rows with the fewest first, as long as they fit.

    Other runs may still go on: a worker that would wait for them runs a seed meanwhile.
    """
    study = progress.study
    if study.plan is None:
        return False
    budget = float(study.plan["budget_seconds"])
    until_end = MARGIN * budget - study.spent_seconds
    if until_end * parallel < SPARE * budget:
        return False
    left = until_end * parallel - sum(min(each, until_end) for each in _busy_seconds(session, progress))
    if left < SPARE * budget:
        return False
    more = False
    for row in sorted(progress.rows, key=lambda row: (row.repeats, row.position)):
        ended = [one for one in progress.of_row(row) if one.status is Status.COMPLETED]
        if row.reason is not None or len(ended) < row.repeats or row.repeats >= MAX_SEEDS:
            continue
        seconds = max(wall_seconds(session, one.id) for one in ended) + 1.0
        if seconds <= min(left, until_end):
            left -= seconds
            row.repeats += 1
            more = True
    return more


# learning-rate tests


def _test_learning_rates(session: Session, progress: Progress) -> None:
    """Request the learning-rate tests that sections of the report show."""
    by_key = {row.key: row for row in progress.rows}
    for section in progress.spec.sections:
        row = by_key.get(section.learning_rate_test or "")
        if row is not None and row.learning_rate_test is None:
            options: LearningRateRange = {"lr_min": 1e-6, "lr_max": 1.0, "steps": 40 if progress.spec.budget else 100}
            row.learning_rate_test = measurements.create(
                session, MeasurementKind.LR_TEST, load_spec(row.spec), options, owner=progress.study.owner
            ).id


def _tests_wait(session: Session, progress: Progress) -> bool:
    numbers = [row.learning_rate_test for row in progress.rows if row.learning_rate_test is not None]
    return any(measurements.get(session, number).status in WAITING for number in numbers)


def seconds_left(session: Session, progress: Progress) -> float | None:
    """Estimated remaining seconds of a study, from its budget or its experiments; None without an estimate."""
    study = progress.study
    if not study.state.active:
        return 0.0
    if study.plan is not None:
        return max(0.0, float(study.plan["budget_seconds"]) - study.spent_seconds)
    if progress.spec.search is not None and progress.spec.budget_seconds is not None:
        return max(0.0, progress.spec.budget_seconds - study.spent_seconds)
    known = [
        one.progress["seconds_left"] for one in progress.unfinished if one.progress and one.progress["seconds_left"]
    ]
    waiting = (
        len(progress.missing())
        + trials_left(progress)
        + sum(one.status is Status.QUEUED for one in progress.unfinished)
    )
    ended = [one.id for one in progress.experiments.values() if one.status is Status.COMPLETED]
    if waiting and not ended:
        return None
    each = [seconds_in(spans) for spans in runs.spans_of(session, ended).values()]
    if not known and not each:
        return None
    return sum(float(value or 0) for value in known) + (waiting * sum(each) / len(each) if each else 0.0)
