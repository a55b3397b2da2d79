"""Advances a study: dry runs, then its runs, then more seeds or additions. Workers call it periodically.

A step reads the state from the database and does what is due in the same transaction, and any worker may repeat it. So
a study continues after any restart.
"""

from pathlib import Path

from sqlalchemy.orm import Session

from models.store import runs, studies, study_additions
from models.store.columns import now
from models.store.states import Status, StudyState
from models.store.study_additions import RowRuns
from models.store.study_budget import begin, end_overtime, is_over, measure, spend_rest
from models.store.study_costs import seconds_in
from models.store.study_lr_tests import request_tests, tests_wait
from models.store.study_runs import start_run
from models.store.study_search import advance_search, trials_left
from models.store.study_snapshot import StudySnapshot
from models.store.tables import Study, StudyRow
from models.studies.comparison import compare_rows

LONGEST_TICK_SECONDS = 10.0
"""A longer pause between two calls means that the lab was stopped; it is not counted as the study's time."""


def advance(session: Session, study_id: int, experiments_dir: Path, *, parallel: int = 1) -> list[int]:
    """Do what is due for a study. Returns new experiments, to be enqueued after the commit."""
    study = studies.get(session, study_id)
    if not study.state.active:
        return []
    snapshot = StudySnapshot.read(session, study)
    _tick(study)
    if snapshot.spec.search is not None:
        return _advance_search(session, snapshot, parallel)
    request_tests(session, snapshot)
    if study.state is StudyState.MEASURING and not measure(session, snapshot, parallel):
        return []
    created = begin(session, snapshot, parallel)
    if not created and not snapshot.unfinished and not snapshot.missing() and not tests_wait(session, snapshot):
        if _more_seeds(session, snapshot, experiments_dir) or spend_rest(session, snapshot, parallel):
            created = begin(session, snapshot, parallel)
        elif _add(session, snapshot, experiments_dir):
            _complete(session, study, snapshot)
    elif len(snapshot.unfinished) < parallel and not snapshot.missing() and spend_rest(session, snapshot, parallel):
        created += begin(session, snapshot, parallel)
    return created


def _advance_search(session: Session, snapshot: StudySnapshot, parallel: int) -> list[int]:
    """Begin trials until there are enough of them, the budget is used up, or no other one is left."""
    budget = snapshot.spec.budget_seconds
    if budget is not None and is_over(snapshot.study, budget):
        end_overtime(session, snapshot)

    def start(row: StudyRow, repeat: int) -> int | None:
        return start_run(session, snapshot, row, repeat, None)

    created = advance_search(session, snapshot, parallel, start)
    if not created and not snapshot.unfinished and not snapshot.missing() and not trials_left(snapshot):
        _complete(session, snapshot.study, snapshot)
    return created


def _tick(study: Study) -> None:
    """Count the time since a worker last looked. Clocks of two machines may differ: no step counts for long."""
    moment = now()
    if study.ticked_at is not None:
        elapsed = (moment - study.ticked_at).total_seconds()
        study.spent_seconds += min(max(elapsed, 0.0), LONGEST_TICK_SECONDS)
    study.ticked_at = moment
    studies.touch(study)


def _add(session: Session, snapshot: StudySnapshot, experiments_dir: Path) -> bool:
    """Measure the study's additions: combined runs, robustness. Returns whether all results are there."""
    if not snapshot.spec.combine and not snapshot.spec.robustness:
        return True
    rows = [RowRuns(row, snapshot.of_row(row)) for row in snapshot.rows]
    return study_additions.advance(
        session, snapshot.study, snapshot.spec, rows, lambda: snapshot.scores(session, experiments_dir)
    )


def _complete(session: Session, study: Study, snapshot: StudySnapshot) -> None:
    ended = [found.status for found in snapshot.experiments.values()]
    if not snapshot.rows or any(status in (Status.COMPLETED, Status.DIVERGED) for status in ended):
        return studies.end(session, study, StudyState.COMPLETED)
    reasons = [row.reason for row in snapshot.rows if row.reason]
    reasons += [found.reason for found in snapshot.experiments.values() if found.reason]
    reason = f"no row could be run: {reasons[0] if reasons else 'all runs were ended'}"
    return studies.end(session, study, StudyState.FAILED, reason)


def _more_seeds(session: Session, snapshot: StudySnapshot, experiments_dir: Path) -> bool:
    """Add a seed to rows whose difference is not known well enough yet, and to their baselines."""
    wanted = snapshot.spec.repeat_until
    if wanted is None:
        return False
    scores = snapshot.scores(session, experiments_dir)
    by_key = {row.key: row for row in snapshot.rows}

    of_row = {row.key: [scores[one.id] for one in snapshot.of_row(row) if one.id in scores] for row in snapshot.rows}
    differences = compare_rows(of_row, {row.key: row.baseline for row in snapshot.rows})
    more: set[str] = set()
    for row in snapshot.rows:
        found = differences[row.key]
        if row.baseline is None or found is None or row.repeats >= wanted.max_seeds:
            continue
        if 100 * found.half_width > wanted.points:
            more |= {row.key, row.baseline}
    for key in more:
        row = by_key[key]
        partners = [other.repeats for other in snapshot.rows if other.key in more]
        row.repeats = min(wanted.max_seeds, max(row.repeats + 1, min(partners) + 1))
    return bool(more)


def seconds_left(session: Session, snapshot: StudySnapshot) -> float | None:
    """Estimated remaining seconds of a study, from its budget or its experiments; None without an estimate."""
    study = snapshot.study
    if not study.state.active:
        return 0.0
    if study.plan is not None:
        return max(0.0, float(study.plan["budget_seconds"]) - study.spent_seconds)
    if snapshot.spec.search is not None and snapshot.spec.budget_seconds is not None:
        return max(0.0, snapshot.spec.budget_seconds - study.spent_seconds)
    known = [
        one.progress["seconds_left"] for one in snapshot.unfinished if one.progress and one.progress["seconds_left"]
    ]
    waiting = (
        len(snapshot.missing())
        + trials_left(snapshot)
        + sum(one.status is Status.QUEUED for one in snapshot.unfinished)
    )
    ended = [one.id for one in snapshot.experiments.values() if one.status is Status.COMPLETED]
    if waiting and not ended:
        return None
    each = [seconds_in(spans) for spans in runs.spans_of(session, ended).values()]
    if not known and not each:
        return None
    return sum(float(value or 0) for value in known) + (waiting * sum(each) / len(each) if each else 0.0)
