"""Queries of experiments: create, get, cancel, resume, delete. Leases are in runs.py, lists in listing.py."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from models.curves.metrics import Summaries
from models.errors import Conflict, InvalidRequest
from models.findings import FindingJson
from models.networks.layer import Layer
from models.notices import NoticeCode
from models.spec.details import Details
from models.spec.experiment import ExperimentSpec
from models.spec.parse import model_label
from models.store import registry
from models.store.columns import now
from models.store.listing import filtered
from models.store.rows import add_event, add_state_event, load, not_found, set_status, touch
from models.store.states import UNFINISHED, EventKind, Status
from models.store.tables import Experiment, ExperimentTag, IdempotencyKey, SummaryRow

MAX_KEY_LENGTH = 255
EACH = SummaryRow.__table__.c
SUMMARIES = select(EACH.experiment_id, EACH.series, EACH.best, EACH.best_epoch, EACH.last).where(
    EACH.experiment_id.in_(bindparam("ids", expanding=True))
)
KNOWN = select(Experiment.id).where(Experiment.id == bindparam("id"))


def create(
    session: Session,
    spec: ExperimentSpec,
    *,
    layers: Sequence[Layer] | None,
    warnings: Sequence[FindingJson],
    owner: str | None = None,
    reproduces: int | None = None,
    dataset_fingerprint: str | None = None,
) -> Experiment:
    """Store a spec as a queued experiment. Enqueue it after the commit."""
    experiment = unsaved(
        spec,
        layers=layers,
        warnings=warnings,
        owner=owner,
        reproduces=reproduces,
        dataset_fingerprint=dataset_fingerprint,
    )
    save(session, [experiment])
    return experiment


def unsaved(
    spec: ExperimentSpec,
    *,
    layers: Sequence[Layer] | None,
    warnings: Sequence[FindingJson],
    owner: str | None = None,
    reproduces: int | None = None,
    dataset_fingerprint: str | None = None,
    digest: str | None = None,
) -> Experiment:
    """A spec as a queued experiment that is not stored yet: many are stored together by `save`.

    `digest` is the spec's, where it is known.
    """
    return Experiment(
        name=spec.name,
        model=model_label(spec.model),
        dataset=spec.dataset.name,
        status=Status.QUEUED,
        owner=owner,
        reproduces=reproduces,
        spec_digest=digest or spec.digest(),
        dataset_fingerprint=dataset_fingerprint,
        spec=spec.as_json(),
        layers=None if layers is None else list(layers),
        warnings=list(warnings),
        tag_rows=_tag_rows(spec.tags),
    )


def save(session: Session, made: Sequence[Experiment]) -> None:
    """Store experiments that `unsaved` made, all in one flush, which gives them their ids."""
    session.add_all(made)
    session.flush()
    for experiment in made:
        add_state_event(session, experiment)


def _tag_rows(tags: Sequence[str]) -> list[ExperimentTag]:
    return [ExperimentTag(tag=tag, position=place) for place, tag in enumerate(dict.fromkeys(tags))]


def describe(session: Session, experiment_id: int, details: Details) -> Experiment:
    """Change an experiment's name, tags or notes, in any status; None empties one, the others stay. Raises NotFound."""
    experiment = load(session, experiment_id)
    if "name" in details.model_fields_set:
        experiment.name = details.name or ""
    if "notes" in details.model_fields_set:
        experiment.notes = details.notes or None
    if "tags" in details.model_fields_set:
        experiment.tag_rows.clear()
        session.flush()  # a tag that stays is deleted before it is inserted again
        experiment.tag_rows.extend(_tag_rows(details.tags or ()))
    touch(experiment)
    add_state_event(session, experiment)  # a name moves it in lists, whose caches go by events
    return experiment


def create_once(
    session: Session, key: str, body_sha256: str, owner: str | None, make: Callable[[], Experiment]
) -> tuple[Experiment, bool]:
    """The experiment that a POST with this idempotency key makes, and whether it was made just now.

    However many requests carry the key, one makes the experiment and the others get it. Raises InvalidRequest for a
    key that came with another body before.
    """
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidRequest(f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters, not {len(key)}")
    known = session.get(IdempotencyKey, (owner or "", key))
    if known is None:
        experiment = make()
        session.add(IdempotencyKey(owner=owner or "", key=key, body_sha256=body_sha256, experiment_id=experiment.id))
        return experiment, True
    if known.body_sha256 != body_sha256:
        raise InvalidRequest(
            f"this Idempotency-Key created experiment {known.experiment_id} from another body",
            fix="send the same body again, or use a new key",
        )
    return load(session, known.experiment_id), False


def unfinished(session: Session, owner: str) -> list[Experiment]:
    """List an owner's experiments that are queued or running."""
    query = select(Experiment).where(Experiment.owner == owner, Experiment.status.in_(UNFINISHED))
    return list(session.scalars(query))


def get(session: Session, experiment_id: int) -> Experiment:
    """One experiment, or NotFound."""
    return load(session, experiment_id)


def original_of(session: Session, experiment_id: int) -> Experiment | None:
    """The experiment that this one repeats; None if it repeats none, or that was deleted."""
    reproduces = get(session, experiment_id).reproduces
    return None if reproduces is None else session.get(Experiment, reproduces)


def require(session: Session, experiment_id: int) -> None:
    """Raise NotFound unless there is such an experiment; reads none of its columns."""
    known = 0 < experiment_id < 2**63 and session.scalar(KNOWN, {"id": experiment_id})
    if not known:
        raise not_found(experiment_id)


def deleted_among(session: Session, ids: Sequence[int]) -> set[int]:
    """Return which of the ids belong to deleted experiments.

    Only ids below the highest one in use count: a new or restored database knows nothing of what it has not seen.
    """
    known = set(session.scalars(select(Experiment.id)))
    highest = max(known, default=0)
    return {identifier for identifier in ids if identifier < highest} - known


def summaries(session: Session, ids: Sequence[int]) -> dict[int, Summaries]:
    """Best and last values of several experiments, by one query.

    A series without a finite value has no best.
    """
    found: dict[int, Summaries] = {identifier: {"best": {}, "last": {}} for identifier in ids}
    for identifier, series, best, best_epoch, last in session.execute(SUMMARIES, {"ids": ids}):
        found[identifier]["last"][series] = last
        if best is not None:
            found[identifier]["best"][series] = {"value": best, "epoch": best_epoch}
    return found


def mark_enqueued(session: Session, *experiment_ids: int) -> None:
    """Record that messages for them are on the queue, which gives each its place: the last, whatever the clock says.

    One whose message was sent before keeps its place.
    """
    last = session.scalar(select(func.max(Experiment.enqueued_at)).where(Experiment.status.in_(UNFINISHED)))
    place = now() if last is None else max(now(), last + timedelta(microseconds=1))
    new = (Experiment.status == Status.QUEUED, Experiment.enqueued_at.is_(None))
    session.execute(update(Experiment).where(Experiment.id.in_(experiment_ids), *new).values(enqueued_at=place))


def waiting(session: Session) -> list[int]:
    """Queued experiments for which no message was put on the queue yet, oldest first."""
    due = (Experiment.status == Status.QUEUED, Experiment.enqueued_at.is_(None))
    return list(session.scalars(select(Experiment.id).where(*due).order_by(Experiment.id)))


def queued_ids(session: Session) -> list[int]:
    """Every queued experiment, oldest first."""
    return list(
        session.scalars(select(Experiment.id).where(Experiment.status == Status.QUEUED).order_by(Experiment.id))
    )


def count_by_status(session: Session, **filters: str | None) -> dict[Status, int]:
    """Count experiments by status, of a model, dataset or tag; every status is listed."""
    counted = session.execute(filtered(select(Experiment.status, func.count()), **filters).group_by(Experiment.status))
    return {**dict.fromkeys(Status, 0), **dict(counted.all())}


def count_queued(session: Session, owner: str | None) -> int:
    """Count an owner's queued experiments, for quotas."""
    query = select(func.count()).where(Experiment.owner == owner, Experiment.status == Status.QUEUED)
    return session.scalar(query) or 0


def count_stored(session: Session, owner: str | None) -> int:
    """Count an owner's experiments, for quotas."""
    return session.scalar(select(func.count()).where(Experiment.owner == owner)) or 0


def request_cancel(session: Session, experiment_id: int) -> Experiment:
    """Cancel a queued experiment at once, or request a running one's worker to stop. Idempotent.

    Raises Conflict for one that has ended otherwise.
    """
    return cancel(session, load(session, experiment_id))


def cancel(session: Session, experiment: Experiment) -> Experiment:
    """As `request_cancel`, of an experiment that was read in this transaction."""
    if experiment.status is Status.QUEUED:
        set_status(session, experiment, Status.CANCELLED, "cancelled while it was queued")
    elif experiment.status is Status.RUNNING:
        if not experiment.cancel_requested:
            experiment.cancel_requested = True
            touch(experiment)
            add_state_event(session, experiment)
    elif experiment.status is not Status.CANCELLED:
        raise Conflict(f"experiment {experiment.id} is {experiment.status}; there is nothing to cancel")
    return experiment


def request_stop(session: Session, experiment_id: int, code: NoticeCode, why: str) -> bool:
    """Have a running experiment end early, as completed with the epochs and weights that it has. Idempotent.

    Returns whether it was running; `why` is told as a notice, and is its reason from then on.
    """
    experiment = load(session, experiment_id)
    if experiment.status is not Status.RUNNING or experiment.cancel_requested:
        return False
    if experiment.stop_requested is None:
        experiment.stop_requested = why
        touch(experiment)
        text = f"{why[:1].upper()}{why[1:]}; it ends with the epochs that it has, and its best weights are kept"
        add_event(session, experiment_id, EventKind.NOTICE, {"code": code.value, "text": text, "data": {}})
    return True


def request_resume(session: Session, experiment_id: int) -> Experiment:
    """Queue a failed, diverged or cancelled experiment again, to continue from its last checkpoint.

    Raises Conflict for another status, and where a model's version has the experiment's weights.
    """
    experiment = load(session, experiment_id)
    if experiment.status not in (Status.FAILED, Status.CANCELLED, Status.DIVERGED):
        raise Conflict(
            f"experiment {experiment_id} is {experiment.status}; only a failed, cancelled or diverged one resumes",
            fix="POST its spec to train it again from the start" if experiment.status is Status.COMPLETED else None,
        )
    registry.check_not_held(session, experiment_id, "resumed")
    experiment.failed_attempts = 0
    experiment.test = None
    experiment.enqueued_at = None  # a new request: it waits at the end of the queue
    set_status(session, experiment, Status.QUEUED)
    return experiment


def delete(session: Session, experiment_id: int) -> None:
    """Delete an experiment and all its data. Raises Conflict while it runs or a model's version needs it.

    Its folder is removed after the commit, by artifacts.remove_folder.
    """
    experiment = load(session, experiment_id)
    if experiment.status is Status.RUNNING:
        raise Conflict(f"experiment {experiment_id} is running", fix="cancel it first, then delete it")
    registry.check_not_held(session, experiment_id, "deleted")
    for link in (Experiment.reproduces, Experiment.continues):  # other experiments lose their original
        others = update(Experiment).where(link == experiment_id)
        session.execute(others.values({link: None, Experiment.revision: Experiment.revision + 1}))
    session.delete(experiment)
