"""Begins the runs of a study: as ordinary experiments, or by sharing one that has the same spec."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.errors import EpochalError
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from models.spec.rows import with_seed
from models.store import experiments, history, studies
from models.store.rows import touch
from models.store.states import Status
from models.store.study_search import is_pruned
from models.store.study_snapshot import StudySnapshot
from models.store.tables import Experiment, StudyRow, StudyRun
from models.studies.budget import Length, Work, describe_shortening, full_length, seconds_of, shorten


def start_run(
    session: Session, snapshot: StudySnapshot, row: StudyRow, repeat: int, plan: tuple[Work, Length] | None
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
        spec = with_seed(spec, snapshot.spec.seed_of(spec.seed, repeat))
    except EpochalError as error:
        row.reason = error.detail
        return None
    shared = _find_shared(session, spec)
    own = shared is None
    if shared is not None:
        touch(shared)  # its document names its studies
    experiment = shared or experiments.create(
        session, spec, layers=row.layers, warnings=row.warnings, owner=snapshot.study.owner
    )
    run = StudyRun(study_id=row.study_id, position=row.position, repeat=repeat, experiment_id=experiment.id, own=own)
    session.add(run)
    session.flush()
    snapshot.runs[row.position, repeat] = run
    snapshot.experiments[experiment.id] = experiment
    studies.touch(snapshot.study)
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
