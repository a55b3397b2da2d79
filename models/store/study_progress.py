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
from models.store.study_state import Progress
from models.store.tables import Study, StudyRow
from models.studies.comparison import compare_rows

LONGEST_TICK_SECONDS = 10.0
"""A longer pause between two calls means that the lab was stopped; it is not counted as the study's time."""


def advance(session: Session, study_id: int, experiments_dir: Path, *, parallel: int = 1) -> list[int]:
    """Do what is due for a study. Returns new experiments, to be enqueued after the commit."""
    study = studies.get(session, study_id)
    if not study.state.active:
        return []
    progress = Progress.read(session, study)
    _tick(study)
    if progress.spec.search is not None:
        return _advance_search(session, progress, parallel)
    request_tests(session, progress)
    if study.state is StudyState.MEASURING and not measure(session, progress, parallel):
        return []
    created = begin(session, progress, parallel)
    if not created and not progress.unfinished and not progress.missing() and not tests_wait(session, progress):
        if _more_seeds(session, progress, experiments_dir) or spend_rest(session, progress, parallel):
            created = begin(session, progress, parallel)
        elif _add(session, progress, experiments_dir):
            _complete(session, study, progress)
    elif len(progress.unfinished) < parallel and not progress.missing() and spend_rest(session, progress, parallel):
        created += begin(session, progress, parallel)
    return created


def _advance_search(session: Session, progress: Progress, parallel: int) -> list[int]:
    """Begin trials until there are enough of them, the budget is used up, or no other one is left."""
    budget = progress.spec.budget_seconds
    if budget is not None and is_over(progress.study, budget):
        end_overtime(session, progress)

    def start(row: StudyRow, repeat: int) -> int | None:
        return start_run(session, progress, row, repeat, None)

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
