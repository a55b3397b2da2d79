"""Begins the runs of a study: as ordinary experiments, or by sharing one that has the same spec."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, lazyload

from models.errors import EpochalError
from models.findings import FindingJson
from models.networks.layer import Layer
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

Wanted = tuple[StudyRow, int, tuple[Work, Length] | None]
"""A run to begin: its row, the number of its seed, and how long it may be where a budget shortens it."""


def start_run(
    session: Session, snapshot: StudySnapshot, row: StudyRow, repeat: int, plan: tuple[Work, Length] | None
) -> int | None:
    """Begin one run: find an experiment with the same spec, or make one. Returns the id of one that is new."""
    return next(iter(start_runs(session, snapshot, [(row, repeat, plan)])), None)


def start_runs(session: Session, snapshot: StudySnapshot, wanted: Sequence[Wanted]) -> list[int]:
    """Begin runs, as `start_run` does. Returns the new ids.

    The number of queries does not grow with the number of runs: the write transaction blocks all other writers, so a
    study of 200 rows must not hold it 200 times as long as one run does.
    """
    specs = [
        (row, repeat, spec, spec.digest())
        for row, repeat, plan in wanted
        if (spec := _spec_of(snapshot, row, repeat, plan)) is not None
    ]
    shared = _find_shared(session, {digest for *_, digest in specs})
    networks = _networks(session, snapshot.study.id, {row.position for row, *_ in specs})
    made: dict[str, Experiment] = {}
    for row, _, spec, digest in specs:
        if digest not in shared and digest not in made:
            layers, warnings = networks[row.position]
            made[digest] = experiments.unsaved(
                spec, layers=layers, warnings=warnings, owner=snapshot.study.owner, digest=digest
            )
    experiments.save(session, list(made.values()))
    for experiment in shared.values():
        touch(experiment)  # its document names its studies
    owned = set()
    for row, repeat, _, digest in specs:
        experiment = shared.get(digest) or made[digest]
        own = digest in made and digest not in owned  # of two rows with one spec the first has made its run
        owned.add(digest)
        run = StudyRun(
            study_id=row.study_id, position=row.position, repeat=repeat, experiment_id=experiment.id, own=own
        )
        session.add(run)
        snapshot.runs[row.position, repeat] = run
        snapshot.experiments[experiment.id] = experiment
    if specs:
        session.flush()
        studies.touch(snapshot.study)
    return [experiment.id for experiment in made.values()]


def _spec_of(
    snapshot: StudySnapshot, row: StudyRow, repeat: int, plan: tuple[Work, Length] | None
) -> ExperimentSpec | None:
    """The spec of a run; None of a row that cannot be run after all, which then says why."""
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
        return with_seed(spec, snapshot.spec.seed_of(spec.seed, repeat))
    except EpochalError as error:
        row.reason = error.detail
        return None


def _networks(
    session: Session, study_id: int, positions: Collection[int]
) -> dict[int, tuple[list[Layer] | None, list[FindingJson]]]:
    """Layers and warnings of rows, which are not read with the rows, by position."""
    query = select(StudyRow.position, StudyRow.layers, StudyRow.warnings).where(
        StudyRow.study_id == study_id, StudyRow.position.in_(positions)
    )
    return {position: (layers, warnings) for position, layers, warnings in session.execute(query)}


def _find_shared(session: Session, digests: Collection[str]) -> dict[str, Experiment]:
    """Experiments with these specs that have run in full or diverged, run or wait, in this order of preference.

    One that continues another began with fewer epochs in its spec, by which its schedule was another one.
    """
    usable = (Status.COMPLETED, Status.DIVERGED, Status.RUNNING, Status.QUEUED)
    query = select(Experiment).where(
        Experiment.spec_digest.in_(digests), Experiment.status.in_(usable), ~history.has_copied_epochs()
    )
    found: dict[str, Experiment] = {}
    for row in session.scalars(query.order_by(Experiment.id).options(lazyload(Experiment.tag_rows))):
        if row.cancel_requested or row.stop_requested is not None or is_pruned(row):
            continue
        best = found.get(row.spec_digest)
        if best is None or usable.index(row.status) < usable.index(best.status):
            found[row.spec_digest] = row
    return found
