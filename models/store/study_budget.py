"""Fits a study into its budget: dry runs, a plan, the next runs, more seeds in the time that is left."""

from sqlalchemy.orm import Session

from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from models.spec.study import MAX_SEEDS
from models.store import experiments, measurements, studies
from models.store.states import MeasurementKind, MeasurementStatus, Status, StudyState
from models.store.study_costs import cost_key, measured_spec, seconds_left_of, wall_seconds, was_interrupted, works_of
from models.store.study_lr_tests import tests_wait
from models.store.study_runs import start_run, start_runs
from models.store.study_snapshot import StudySnapshot
from models.store.tables import Study, StudyRow
from models.studies.budget import (
    MARGIN,
    SMALLEST,
    SPARE,
    Length,
    by_urgency,
    first_fit,
    refit,
    seconds_of,
    shortened,
    val_limit_at,
)
from models.studies.images import split_sizes
from models.text import duration, plural

OVERTIME = 1.08
"""Runs that are still going on after this multiple of the budget are ended."""


def is_over(study: Study, budget: float) -> bool:
    """Whether a study has used up its budget, in seconds."""
    return study.spent_seconds > OVERTIME * budget


def measure(session: Session, snapshot: StudySnapshot, parallel: int) -> bool:
    """Request dry runs, one for each kind of row. Returns whether all have ended and the plan is made."""
    study = snapshot.study
    known: dict[str, int] = {}
    for row in snapshot.rows:
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
    if any(one.status in measurements.UNFINISHED for one in found) or tests_wait(session, snapshot):
        return False
    _leave_out(session, snapshot)
    budget = snapshot.spec.budget_seconds
    assert budget is not None
    works = works_of(session, snapshot.rows, snapshot.of_row, snapshot.missing())
    scale = first_fit(works, budget, study.spent_seconds, parallel=parallel)
    if scale == 0.0:
        shortest = sum(seconds_of(work, shortened(work, SMALLEST)) * work.runs for work in works) / parallel
        needed = study.spent_seconds + shortest / MARGIN
        runs = sum(work.runs for work in works)
        reason = (
            f"a budget of {duration(budget)} is too little for one epoch of a thousand images a row: "
            f"{plural(runs, 'run')} take{'s' * (runs == 1)} about {duration(needed)} here; "
            f"give at least {_round_up(needed)}"
        )
        studies.end(session, study, StudyState.FAILED, reason)
        return False
    whole = max((work.val_images for work in works), default=0)
    study.plan = {"scale": scale, "val_limit": val_limit_at(scale, whole), "budget_seconds": budget}
    study.state = StudyState.RUNNING
    studies.touch(study)
    return True


def _leave_out(session: Session, snapshot: StudySnapshot) -> None:
    """Mark rows whose dry run failed as not to be run, since the run would fail in the same way."""
    for row in snapshot.rows:
        found = None if row.measurement is None else measurements.get(session, row.measurement)
        if found is not None and found.status is MeasurementStatus.FAILED and not was_interrupted(found):
            row.reason = found.reason


def _round_up(seconds: float) -> str:
    minutes = -(-int(seconds * 1.15 + 1) // 60)
    return f"{minutes}m"


def begin(session: Session, snapshot: StudySnapshot, parallel: int) -> list[int]:
    """Begin runs: all of them without a budget, else as many as there are workers."""
    missing = snapshot.missing()
    if snapshot.study.plan is None:
        return start_runs(session, snapshot, [(row, repeat, None) for row, repeat in missing])
    budget = float(snapshot.study.plan["budget_seconds"])
    if is_over(snapshot.study, budget):
        end_overtime(session, snapshot)
        missing = []
    if not missing or len(snapshot.unfinished) >= parallel:
        return []
    works = {work.key: work for work in works_of(session, snapshot.rows, snapshot.of_row, missing)}
    plan = snapshot.study.plan
    left = MARGIN * budget - snapshot.study.spent_seconds
    shared = left - sum(min(each, left) for each in _busy_seconds(session, snapshot)) / parallel
    most = float(plan.get("most") or plan["scale"])
    scale = refit(list(works.values()), shared, plan["scale"], most, parallel=parallel, val_limit=plan["val_limit"])
    if scale != plan["scale"]:
        snapshot.study.plan = {**plan, "scale": scale, "most": most}
    lengths = {key: shortened(work, scale, plan["val_limit"]) for key, work in works.items()}
    lasting = [((row, repeat), seconds_of(works[row.key], lengths[row.key])) for row, repeat in missing]
    created = []
    for row, repeat in by_urgency(lasting, left)[: parallel - len(snapshot.unfinished)]:
        work, length = works[row.key], lengths[row.key]
        if repeat and row.planned is not None:  # seeds of a row are of one length
            length = _length_of(load_spec(row.planned), row)
        if made := start_run(session, snapshot, row, repeat, (work, length)):
            created.append(made)
    return created


def _busy_seconds(session: Session, snapshot: StudySnapshot) -> list[float]:
    """What each run that has begun and not ended still takes."""
    rows = {row.position: row for row in snapshot.rows}
    going = {
        run.experiment_id: rows[run.position]
        for run in snapshot.runs.values()
        if (one := snapshot.experiment(run.position, run.repeat)) is not None and not one.status.terminal
    }
    pairs = [(row, 0) for row in going.values()]
    works = {work.key: work for work in works_of(session, snapshot.rows, snapshot.of_row, pairs)}
    return [seconds_left_of(session, one, going[one.id], works[going[one.id].key]) for one in snapshot.unfinished]


def _length_of(spec: ExperimentSpec, row: StudyRow) -> Length:
    train, val, _ = split_sizes(spec, row.images)
    return Length(spec.epochs, train, val)


def end_overtime(session: Session, snapshot: StudySnapshot) -> None:
    """End a study whose time is over: its runs are stopped with their results so far, rows without a run are marked."""
    for experiment in snapshot.unfinished:
        run = next(run for run in snapshot.runs.values() if run.experiment_id == experiment.id)
        if run.own and not experiment.cancel_requested:
            experiments.request_cancel(session, experiment.id)
    for row, _ in snapshot.missing():
        if not snapshot.of_row(row):
            row.reason = "the budget was used up before it could begin"
        else:
            row.repeats = len(snapshot.of_row(row))


def spend_rest(session: Session, snapshot: StudySnapshot, parallel: int) -> bool:
    """Spend what is left of a budget on more seeds: rows with the fewest first, as long as they fit.

    Other runs may still go on: a worker that would wait for them runs a seed meanwhile.
    """
    study = snapshot.study
    if study.plan is None:
        return False
    budget = float(study.plan["budget_seconds"])
    until_end = MARGIN * budget - study.spent_seconds
    if until_end * parallel < SPARE * budget:
        return False
    left = until_end * parallel - sum(min(each, until_end) for each in _busy_seconds(session, snapshot))
    if left < SPARE * budget:
        return False
    more = False
    for row in sorted(snapshot.rows, key=lambda row: (row.repeats, row.position)):
        ended = [one for one in snapshot.of_row(row) if one.status is Status.COMPLETED]
        if row.reason is not None or len(ended) < row.repeats or row.repeats >= MAX_SEEDS:
            continue
        seconds = max(wall_seconds(session, one.id) for one in ended) + 1.0
        if seconds <= min(left, until_end):
            left -= seconds
            row.repeats += 1
            more = True
    return more
