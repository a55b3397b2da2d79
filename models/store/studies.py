"""Queries of studies: create, get, list, cancel, resume, delete. What a worker does for one is in study_progress.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session, defer, lazyload, load_only

from models.errors import Conflict, InvalidRequest, NotFound
from models.findings import FindingJson
from models.networks.layer import Layer
from models.plain import JsonObject
from models.spec.rows import Parsed, Row, load_study
from models.spec.study import StudySpec
from models.store import experiments, study_additions, webhooks
from models.store.columns import now
from models.store.experiments import MAX_KEY_LENGTH
from models.store.rows import touch as touch_experiment
from models.store.search_state import SearchState
from models.store.states import UNFINISHED, Status, StudyState, StudyStatus
from models.store.tables import Experiment, Study, StudyRow, StudyRun
from models.studies.images import RowImages
from models.text import plural

ACTIVE = tuple(state for state in StudyState if state.active)
BRIEF = (Experiment.status, Experiment.progress, Experiment.reason)
BRIEF_ROW = (StudyRow.key, StudyRow.repeats, StudyRow.reason)
TITLES = (
    select(Study.id, Study.title)
    .join(StudyRun, StudyRun.study_id == Study.id)
    .where(StudyRun.experiment_id == bindparam("id"))
    .order_by(Study.id)
    .distinct()
)


@dataclass(frozen=True)
class NewRow:
    """A row to create, with its network's layers and warnings."""

    row: Row
    layers: Sequence[Layer]
    warnings: Sequence[FindingJson]
    images: RowImages


def create(
    session: Session,
    parsed: Parsed,
    rows: Sequence[NewRow],
    *,
    owner: str | None = None,
    search: SearchState | None = None,
) -> Study:
    """Store a study and its rows; nothing is queued yet (see study_progress.advance).

    `search` is what study_search.py needs of a search, whose rows are made while it runs.
    """
    spec = parsed.spec
    study = Study(
        title=spec.title,
        state=StudyState.MEASURING if needs_plan(spec) else StudyState.RUNNING,
        owner=owner,
        spec=spec.model_dump(mode="json", exclude_unset=True),
        search=search,
    )
    session.add(study)
    session.flush()
    for position, new in enumerate(rows):
        row = new.row
        session.add(
            StudyRow(
                study_id=study.id,
                position=position,
                key=row.key,
                baseline=row.baseline,
                share=row.share,
                min_epochs=row.min_epochs,
                when_shortened=dict(row.when_shortened),
                repeats=row.num_seeds,
                title=row.title,
                question=row.question,
                published=None if row.published is None else row.published.model_dump(mode="json"),
                spec=row.spec.as_json(),
                layers=list(new.layers),
                warnings=list(new.warnings),
                images=new.images,
            )
        )
    session.flush()
    return study


def needs_plan(spec: StudySpec) -> bool:
    """Whether its rows are measured and shortened before they are run; a search with a budget draws fewer trials."""
    return spec.budget is not None and spec.search is None


def create_once(
    session: Session, key: str, body_sha256: str, owner: str | None, make: Callable[[], Study]
) -> tuple[Study, bool]:
    """The study that a POST with this idempotency key makes, and whether it was made just now.

    Raises InvalidRequest for a key that came with another body before.
    """
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidRequest(f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters, not {len(key)}")
    mine = Study.owner.is_(None) if owner is None else Study.owner == owner
    known = session.scalar(select(Study).where(mine, Study.idempotency_key == key))
    if known is None:
        study = make()
        study.idempotency_key, study.body_sha256 = key, body_sha256
        return study, True
    if known.body_sha256 != body_sha256:
        raise InvalidRequest(
            f"this Idempotency-Key created study {known.id} from another body",
            fix="send the same body again, or use a new key",
        )
    return known, False


def get(session: Session, study_id: int) -> Study:
    """One study, or NotFound."""
    found = session.get(Study, study_id, populate_existing=True) if 0 < study_id < 2**63 else None
    if found is None:
        raise NotFound(f"there is no study {study_id}", fix="GET /api/v1/studies lists them")
    return found


def list_page(
    session: Session, *, status: StudyStatus | None, before: int | None, limit: int
) -> tuple[list[Study], bool, int]:
    """Studies, the newest first, from below an id on; whether there are more; and how many in all."""
    wanted = [] if status is None else list(_with_status(status))
    total = session.scalar(select(func.count()).select_from(Study).where(*wanted)) or 0
    query = select(Study).where(*wanted).order_by(Study.id.desc()).limit(limit + 1)
    found = list(session.scalars(query if before is None else query.where(Study.id < before)))
    return found[:limit], len(found) > limit, total


def _with_status(status: StudyStatus) -> Iterator[ColumnElement[bool]]:
    """The conditions for a status, as `service.studies.read.status_of` tells it of one study."""
    begun = (
        select(StudyRun.repeat)
        .join(Experiment, Experiment.id == StudyRun.experiment_id)
        .where(StudyRun.study_id == Study.id, Experiment.status != Status.QUEUED)
        .exists()
    )
    yield Study.state == (StudyState.RUNNING if status is StudyStatus.QUEUED else StudyState(status.value))
    if status is StudyStatus.QUEUED:
        yield ~begun
    elif status is StudyStatus.RUNNING:
        yield begun


def rows_of(session: Session, study_id: int, *, brief: bool = False) -> list[StudyRow]:
    """A study's rows in order; `brief` for how many runs they have: other columns are read when asked for."""
    columns = [load_only(*BRIEF_ROW)] if brief else [defer(StudyRow.layers), defer(StudyRow.warnings)]
    query = select(StudyRow).where(StudyRow.study_id == study_id).order_by(StudyRow.position)
    return list(session.scalars(query.options(*columns)))


def runs_of(session: Session, study_id: int) -> list[StudyRun]:
    """A study's runs, by row and seed."""
    query = select(StudyRun).where(StudyRun.study_id == study_id).order_by(StudyRun.position, StudyRun.repeat)
    return list(session.scalars(query))


def experiments_of(session: Session, runs: Sequence[StudyRun], *, brief: bool = False) -> dict[int, Experiment]:
    """The experiments of runs, by id; `brief` for status and progress alone: other columns are read when asked for."""
    ids = [run.experiment_id for run in runs if run.experiment_id is not None]
    columns = load_only(*BRIEF) if brief else defer(Experiment.layers)
    query = select(Experiment).where(Experiment.id.in_(ids)).options(columns, lazyload(Experiment.tag_rows))
    return {row.id: row for row in session.scalars(query)}


def due_ids(session: Session, seconds: float) -> list[int]:
    """Studies that a worker still has something to do for, and that none has looked at for so many seconds.

    A time in the future counts as old: it was written by a clock that was wrong.
    """
    query = select(Study.id, Study.ticked_at).where(Study.state.in_(ACTIVE))
    moment = now()
    return [
        study_id
        for study_id, ticked_at in session.execute(query.order_by(Study.id))
        if ticked_at is None or abs((moment - ticked_at).total_seconds()) >= seconds
    ]


def is_search_active(session: Session) -> bool:
    """Whether one of them is a search."""
    query = select(Study.id).where(Study.state.in_(ACTIVE))
    return session.scalar(query.where(Study.search.is_not(None)).limit(1)) is not None


def titles_with(session: Session, experiment_id: int) -> list[tuple[int, str]]:
    """Ids and titles of the studies that an experiment is a run of."""
    return [(number, title) for number, title in session.execute(TITLES, {"id": experiment_id})]


def touch(study: Study) -> None:
    """Mark the study as changed, for caches."""
    study.revision += 1
    study.updated_at = now()


def end(session: Session, study: Study, state: StudyState, reason: str | None = None) -> None:
    """End a study, and notify webhooks."""
    study.state, study.reason, study.finished_at = state, reason, now()
    touch(study)
    webhooks.announce_study(session, study)


def request_cancel(session: Session, study_id: int) -> Study:
    """Cancel a study: nothing more is begun, and runs that were made for studies, of which no other one waits for them,
    are cancelled; experiments that were submitted by themselves go on. Idempotent.

    Raises Conflict for one that has ended.
    """
    study = get(session, study_id)
    if study.state is StudyState.CANCELLED:
        return study
    if not study.state.active:
        raise Conflict(f"study {study_id} is {study.state}; there is nothing to cancel")
    end(session, study, StudyState.CANCELLED)
    session.flush()
    needed = needed_by_others(session, study_id)
    for experiment in _made_unfinished(session, study_id):
        if experiment.id not in needed:
            experiments.cancel(session, experiment)
    return study


def request_resume(session: Session, study_id: int) -> tuple[Study, list[int]]:
    """Resume a study: rows that were not run are run, and runs that failed or were cancelled are resumed.

    A run that it shared, whose experiment is not its own to resume, is made again. Returns it and the experiments to
    enqueue. Raises Conflict for a study that is running, for one whose rows are all completed, and while its runs are
    being cancelled.
    """
    study = get(session, study_id)
    if study.state.active:
        raise Conflict(f"study {study_id} is {study.state}; only one that has ended resumes")
    runs = runs_of(session, study_id)
    found = experiments_of(session, runs)
    if stopping := [row.id for row in found.values() if row.cancel_requested]:
        are = "is" if len(stopping) == 1 else "are"
        raise Conflict(
            f"{plural(len(stopping), 'run')} of study {study_id} {are} still being cancelled, and would end so",
            fix="send it again in a few seconds, when they have ended",
            retry_after_seconds=2,
        )
    again = [
        row.id
        for row in found.values()
        if row.status in (Status.FAILED, Status.CANCELLED)
        and any(run.own and run.experiment_id == row.id for run in runs)
    ]
    lost = [
        run
        for run in runs
        if not run.own
        and run.experiment_id is not None
        and found[run.experiment_id].status in (Status.FAILED, Status.CANCELLED)
    ]
    missing = [row for row in rows_of(session, study_id) if row.reason is not None]
    whole = sum(row.repeats for row in rows_of(session, study_id)) <= sum(run.experiment_id is not None for run in runs)
    if not again and not lost and not missing and whole and study.state is not StudyState.CANCELLED:
        raise Conflict(
            f"study {study_id} is {study.state}, and none of its runs failed or was cancelled",
            fix=f"POST /api/v1/studies/{study_id}/clone runs it again with changes",
        )
    for experiment_id in again:
        experiments.request_resume(session, experiment_id)
    for row in missing:
        row.reason = None
    for run in runs:
        if run.experiment_id is None or run in lost:  # deleted since, or another's that was ended: it is made again
            session.delete(run)
    measured = study.plan is not None or not needs_plan(load_study(study.spec))
    study.state = StudyState.RUNNING if measured else StudyState.MEASURING
    study.finished_at = study.reason = study.ticked_at = None
    study_additions.forget(session, study_id)
    if study.search is not None:
        study.search = {**study.search, "stopped": None}
    touch(study)
    return study, again


def delete(session: Session, study_id: int, *, with_experiments: bool) -> list[int]:
    """Remove a study that does not run. Its experiments stay unless `with_experiments`, which removes its own.

    Those that other studies have among their runs, and those that still run, stay in any case. Returns the ids of the
    experiments that were removed, whose folders are to be removed after the commit.
    """
    study = get(session, study_id)
    if study.state.active:
        raise Conflict(f"study {study_id} is {study.state}", fix="cancel it first, then delete it")
    removed = []
    runs = runs_of(session, study_id)
    found = experiments_of(session, runs)
    for experiment in found.values():
        touch_experiment(experiment)  # its document names its studies
    own = list(dict.fromkeys(run.experiment_id for run in runs if run.own and run.experiment_id is not None))
    shared = _shared_with(session, study_id)
    for experiment_id in own:
        if experiment_id in shared:
            shared[experiment_id].own = True  # made for a study, and no longer for this one
        elif with_experiments and found[experiment_id].status is not Status.RUNNING:
            experiments.delete(session, experiment_id)
            removed.append(experiment_id)
    session.execute(delete_rows(StudyRun).where(StudyRun.study_id == study_id))
    session.execute(delete_rows(StudyRow).where(StudyRow.study_id == study_id))
    session.delete(study)
    return removed


def _made_unfinished(session: Session, study_id: int) -> list[Experiment]:
    """Unfinished experiments of a study that it made, or that another study made and this one shares."""
    made = select(StudyRun.experiment_id).where(StudyRun.own.is_(True), StudyRun.experiment_id.is_not(None))
    mine = select(StudyRun.experiment_id).where(StudyRun.study_id == study_id)
    query = select(Experiment).where(
        Experiment.id.in_(mine), Experiment.id.in_(made), Experiment.status.in_(UNFINISHED)
    )
    return list(session.scalars(query.order_by(Experiment.id).options(defer(Experiment.layers))))


def needed_by_others(session: Session, study_id: int) -> set[int]:
    """The experiments that are runs of other studies that have not ended."""
    query = (
        select(StudyRun.experiment_id)
        .join(Study, Study.id == StudyRun.study_id)
        .where(Study.id != study_id, Study.state.in_(ACTIVE), StudyRun.experiment_id.is_not(None))
    )
    return set(session.scalars(query))


def _shared_with(session: Session, study_id: int) -> dict[int, StudyRun]:
    """Runs of other studies by their experiments, of those that this study has too: the oldest study's of each."""
    mine = select(StudyRun.experiment_id).where(StudyRun.study_id == study_id)
    query = select(StudyRun).where(StudyRun.study_id != study_id, StudyRun.experiment_id.in_(mine))
    found: dict[int, StudyRun] = {}
    for run in session.scalars(query.order_by(StudyRun.study_id)):
        if run.experiment_id is not None:
            found.setdefault(run.experiment_id, run)
    return found


def as_body(study: Study) -> JsonObject:
    """The study's spec as it was sent, to be POSTed again."""
    return dict(study.spec)
