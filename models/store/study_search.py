"""Advances a search: draws trials, begins them, ends some early, and stores its findings with the study.

A trial is a row of the study whose experiment is an ordinary one. What comes next follows from the rows and the
histories of their experiments alone (models.studies.search), so any worker may go on with it, after any restart.

What cannot be read from them is in `Study.search` (search_state.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.errors import SpecError
from models.notices import NoticeCode
from models.spec.search import Pruner, SearchSpec, num_trials
from models.spec.trials import network_key, title_of, trial_spec
from models.store import experiments, history, studies
from models.store.search_state import SearchState
from models.store.states import Status
from models.store.study_costs import wall_seconds
from models.store.study_snapshot import StudySnapshot
from models.store.tables import EpochRow, Experiment, StudyRow
from models.studies.search import Ending, Trial, best_so_far, importances, next_params, why_stop

AT_ONCE = 5
"""Trials drawn in one step beyond those that are begun: their experiments are there already."""
Start = Callable[[StudyRow, int], int | None]
"""Begins a run of a row. Returns the id of an experiment that is new."""


def state_of(snapshot: StudySnapshot) -> SearchState:
    """The stored state of a search; empty for a study that is not a search."""
    return snapshot.study.search or {}


def search_of(snapshot: StudySnapshot) -> SearchSpec:
    """The search of a study that is one."""
    assert snapshot.spec.search is not None
    return snapshot.spec.search


def trials_left(snapshot: StudySnapshot) -> int:
    """Trials that may still be drawn."""
    if snapshot.spec.search is None or state_of(snapshot).get("stopped"):
        return 0
    return max(0, num_trials(snapshot.spec.search) - len(snapshot.rows))


def read_trials(session: Session, snapshot: StudySnapshot) -> list[Trial]:
    """The trials so far, with their values by epoch."""
    found = history.read_many(session, list(snapshot.experiments))
    return [
        Trial(
            number=row.position,
            params=row.params or {},
            ending=ending_of(experiment),
            values={} if experiment is None else best_so_far(found[experiment.id]),
            diverged=experiment is not None and experiment.status is Status.DIVERGED,
        )
        for row in snapshot.rows
        for experiment in [snapshot.experiment(row.position, 0)]
    ]


def ending_of(experiment: Experiment | None) -> Ending:
    """The state of a trial; one without an experiment was deleted."""
    if experiment is None:
        return Ending.FAILED
    if is_pruned(experiment):
        return Ending.PRUNED
    if experiment.status in (Status.COMPLETED, Status.DIVERGED):
        return Ending.COMPLETE
    return Ending.FAILED if experiment.status.terminal else Ending.WAITING


def is_pruned(experiment: Experiment) -> bool:
    """Whether an experiment was ended early: only such a completed one has a reason."""
    return experiment.status is Status.COMPLETED and experiment.reason is not None


def advance_search(session: Session, snapshot: StudySnapshot, parallel: int, start: Start) -> list[int]:
    """End trials early, and draw the next ones, as many as there are workers. Returns new experiments."""
    _prune(session, snapshot)
    created: list[int] = []
    for row, repeat in snapshot.missing():
        if made := start(row, repeat):
            created.append(made)
    for _ in range(parallel + AT_ONCE):
        if len(snapshot.unfinished) >= parallel or trials_left(snapshot) == 0:
            break
        if _is_time_over(session, snapshot):
            _note(snapshot, stopped="budget")
            break
        drawn = _draw(session, snapshot)
        if drawn is None:
            _note(snapshot, stopped="space")
            break
        if made := start(drawn, 0):
            created.append(made)
    _count(session, snapshot)
    return created


def _draw(session: Session, snapshot: StudySnapshot) -> StudyRow | None:
    """Make the row of the next trial; None if no other one can be run."""
    search = state_of(snapshot)

    def can_run(params: Mapping[str, Any]) -> bool:
        try:
            trial_spec(snapshot.spec, params)
        except SpecError:
            return False
        return True

    params = next_params(search_of(snapshot), read_trials(session, snapshot), can_run)
    if params is None:
        return None
    spec = trial_spec(snapshot.spec, params, search["dataset"])
    network = next((each for each in search["networks"] if each["key"] == network_key(spec)), None)
    row = StudyRow(
        study_id=snapshot.study.id,
        position=len(snapshot.rows),
        key=f"t{len(snapshot.rows) + 1}",
        baseline=None,
        title=title_of(params),
        question="",
        spec=spec.as_json(),
        params=params,
        when_shortened={},
        layers=None if network is None else network["layers"],
        warnings=[],
        images=search["images"],
        repeats=1,
    )
    session.add(row)
    session.flush()
    snapshot.rows.append(row)
    return row


def _prune(session: Session, snapshot: StudySnapshot) -> None:
    """Request trials that are behind the others to end early. Each is judged once an epoch."""
    search = search_of(snapshot)
    if search.pruner is Pruner.NONE:
        return
    needed = studies.needed_by_others(session, snapshot.study.id)
    running = {
        row.position: experiment
        for row in snapshot.rows
        if (experiment := snapshot.experiment(row.position, 0)) is not None
        and experiment.status is Status.RUNNING
        and experiment.stop_requested is None
        and snapshot.runs[row.position, 0].own
        and experiment.id not in needed
    }
    judged = state_of(snapshot).get("judged", {})
    reached = _epochs_of(session, [experiment.id for experiment in running.values()])
    due = {
        number: reached[experiment.id]
        for number, experiment in running.items()
        if reached.get(experiment.id, 0) > judged.get(str(number), 0)
    }
    if not due:
        return
    trials = read_trials(session, snapshot)
    for number in due:
        experiment = running[number]
        epochs = int(experiment.spec["epochs"])
        why = why_stop(search, trials, trials[number], epochs, judged.get(str(number), 0))
        if why is not None:
            experiments.request_stop(session, experiment.id, NoticeCode.PRUNED, why)
    _note(snapshot, judged={**judged, **{str(number): epoch for number, epoch in due.items()}})


def _epochs_of(session: Session, ids: list[int]) -> dict[int, int]:
    query = select(EpochRow.experiment_id, func.max(EpochRow.epoch)).where(EpochRow.experiment_id.in_(ids))
    return dict(session.execute(query.group_by(EpochRow.experiment_id)).all())


def _is_time_over(session: Session, snapshot: StudySnapshot) -> bool:
    """Whether another trial would probably end after the budget: it takes as long as the middle one so far."""
    budget = snapshot.spec.budget_seconds
    if budget is None:
        return False
    ended = [one.id for one in snapshot.experiments.values() if one.status is Status.COMPLETED and not is_pruned(one)]
    each = sorted(wall_seconds(session, number) for number in ended)
    typical = each[len(each) // 2] if each else 0.0
    return snapshot.study.spent_seconds + typical > budget


def _count(session: Session, snapshot: StudySnapshot) -> None:
    """Recompute the fields' importances when another trial has ended."""
    ended = sum(experiment.status.terminal for experiment in snapshot.experiments.values())
    if state_of(snapshot).get("counted", 0) != ended:
        found = importances(search_of(snapshot), read_trials(session, snapshot))
        _note(snapshot, counted=ended, importances=found)


def _note(snapshot: StudySnapshot, **changes: Any) -> None:
    """Store members of `Study.search`, as a new object: SQLAlchemy does not notice changes inside a JSON value."""
    snapshot.study.search = cast(SearchState, {**state_of(snapshot), **changes})
    studies.touch(snapshot.study)
