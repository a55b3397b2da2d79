"""Models: names with versions. A version is one experiment's weights and never changes; a rollback withdraws it.

A name serves its newest version that is not withdrawn. A rollback can return to earlier versions that are not
withdrawn, so their experiments must stay: experiments.py asks `holding` before it deletes or resumes one.
"""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.errors import Conflict, NotFound
from models.model_names import NAME, check_name
from models.store.columns import now
from models.store.states import WeightsChoice
from models.store.tables import Model, ModelVersion

MAX_VERSIONS = 10_000
"""The most versions of one name."""


def add_version(
    session: Session,
    name: str,
    *,
    experiment_id: int,
    weights: WeightsChoice,
    epoch: int | None,
    sha256: str,
    owner: str | None,
) -> ModelVersion:
    """Make a name's next version, and the name if it is new. Numbers count from 1 and are not used again."""
    check_name(name)
    if session.get(Model, name) is None:
        session.add(Model(name=name))
        session.flush()
    newest = session.scalar(select(func.max(ModelVersion.version)).where(ModelVersion.model == name)) or 0
    if newest >= MAX_VERSIONS:
        raise Conflict(f"model '{name}' has {newest:,} versions, as many as a model may have", fix="take another name")
    version = ModelVersion(
        model=name,
        version=newest + 1,
        experiment_id=experiment_id,
        weights=weights,
        epoch=epoch,
        sha256=sha256,
        owner=owner,
    )
    session.add(version)
    session.flush()
    return version


def current(session: Session, name: str) -> ModelVersion:
    """The version that a name serves. Raises NotFound without such a name."""
    found = _usable(session, name, 1)
    if not found:
        raise NotFound(f"there is no model '{name[:100]}'", fix="GET /api/v1/models lists them")
    return found[0]


def get_version(session: Session, name: str, version: int) -> ModelVersion:
    """A version that can predict. Raises NotFound, and Conflict if it was withdrawn."""
    serving = current(session, name)
    found = session.get(ModelVersion, (name, version)) if 0 < version < 2**31 else None
    if found is None:
        raise NotFound(
            f"model '{name}' has no version {version}; it serves version {serving.version}",
            fix=f"GET /api/v1/models/{name}/versions lists them",
        )
    if found.withdrawn_at is not None:
        raise Conflict(
            f"version {version} of model '{name}' was withdrawn; it serves version {serving.version}",
            fix=f"use version {serving.version}, or PUT experiment {found.experiment_id} again as the next version"
            if found.experiment_id
            else f"use version {serving.version}",
        )
    return found


def usable_versions(session: Session, name: str) -> list[int]:
    """The numbers of the versions that are not withdrawn, the newest first."""
    return [found.version for found in _usable(session, name, MAX_VERSIONS)]


def rollback(session: Session, name: str, to: int | None = None) -> ModelVersion:
    """Withdraw the version that is served, or all after `to`, so that the one before is served.

    Raises NotFound without such a name or version, Conflict where there is no version to go back to.
    """
    serving = current(session, name)
    if to is None:
        before = _usable(session, name, 2)[1:]
        if not before:
            raise Conflict(
                f"model '{name}' serves version {serving.version}, and there is no version before it to go back to",
                fix=f"PUT /api/v1/models/{name} with another experiment makes the next version",
            )
        to = before[0].version
    target = get_version(session, name, to)
    if target.version == serving.version:
        raise Conflict(f"model '{name}' serves version {to} already; there is nothing to roll back")
    for found in _usable(session, name, MAX_VERSIONS):
        if found.version > to:
            found.withdrawn_at = now()
    session.flush()
    return target


def withdraw(session: Session, name: str, version: int) -> None:
    """Withdraw an earlier version, which frees its experiment. Idempotent.

    Raises NotFound without such a name or version, Conflict for the version that is served.
    """
    serving = current(session, name)
    found = session.get(ModelVersion, (name, version)) if 0 < version < 2**31 else None
    if found is None:
        raise NotFound(f"model '{name}' has no version {version}", fix=f"GET /api/v1/models/{name}/versions lists them")
    if version == serving.version:
        raise Conflict(
            f"version {version} is what model '{name}' serves",
            fix=_how_to_free(session, serving),
        )
    found.withdrawn_at = found.withdrawn_at or now()
    session.flush()


def delete(session: Session, name: str) -> None:
    """Remove a name with its versions; experiments and weights stay. Raises NotFound."""
    found = session.get(Model, name) if NAME.fullmatch(name) else None
    if found is None:
        raise NotFound(f"there is no model '{name[:100]}'", fix="GET /api/v1/models lists them")
    session.delete(found)


def list_models(session: Session, *, after: str, limit: int) -> tuple[list[ModelVersion], bool, int]:
    """The version that each name serves, by name, following `after`; whether there are more; the number of names."""
    newest = (
        select(ModelVersion.model, func.max(ModelVersion.version).label("version"))
        .where(ModelVersion.withdrawn_at.is_(None))
        .group_by(ModelVersion.model)
        .subquery()
    )
    query = (
        select(ModelVersion)
        .join(newest, (newest.c.model == ModelVersion.model) & (newest.c.version == ModelVersion.version))
        .where(ModelVersion.model > after)
        .order_by(ModelVersion.model)
        .limit(limit + 1)
    )
    found = list(session.scalars(query))
    total = session.scalar(select(func.count()).select_from(newest)) or 0
    return found[:limit], len(found) > limit, total


def list_versions(
    session: Session, name: str, *, before: int | None, limit: int
) -> tuple[list[ModelVersion], bool, int]:
    """A name's versions, withdrawn ones too, the newest first, from below a number on; whether there are more; how many
    in all. Raises NotFound.
    """
    current(session, name)
    query = select(ModelVersion).where(ModelVersion.model == name).order_by(ModelVersion.version.desc())
    found = list(
        session.scalars((query if before is None else query.where(ModelVersion.version < before)).limit(limit + 1))
    )
    total = session.scalar(select(func.count()).where(ModelVersion.model == name)) or 0
    return found[:limit], len(found) > limit, total


def count_versions(session: Session, owner: str) -> int:
    """How many versions a key has made, for quotas."""
    return session.scalar(select(func.count()).where(ModelVersion.owner == owner)) or 0


def holding(session: Session, experiment_id: int) -> Sequence[ModelVersion]:
    """The versions with an experiment's weights that are served or can be returned to."""
    query = select(ModelVersion).where(ModelVersion.experiment_id == experiment_id, ModelVersion.withdrawn_at.is_(None))
    return session.scalars(query.order_by(ModelVersion.model, ModelVersion.version)).all()


def check_not_held(session: Session, experiment_id: int, what: str) -> None:
    """Raise Conflict if a model's version needs the experiment; `what` is the operation, for the message."""
    if not (found := holding(session, experiment_id)):
        return
    named = ", ".join(f"version {one.version} of model '{one.model}'" for one in found[:5])
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    raise Conflict(
        f"experiment {experiment_id} cannot be {what}: its weights are {named}{more}",
        fix=_how_to_free(session, found[0]),
        models=[{"model": one.model, "version": one.version} for one in found[:50]],
    )


def _how_to_free(session: Session, held: ModelVersion) -> str:
    """What to send so that a version needs its experiment no longer."""
    address = f"/api/v1/models/{held.model}"
    serving, *before = _usable(session, held.model, 2)
    if held.version != serving.version:
        return f"withdraw the version first: DELETE {address}/versions/{held.version}"
    if before:
        return f"POST {address}/rollback withdraws it and serves version {before[0].version}"
    return f"no version is before it: DELETE {address} removes the name, PUT another experiment makes the next version"


def _usable(session: Session, name: str, limit: int) -> list[ModelVersion]:
    """Versions that are not withdrawn, the newest first; empty for an invalid name."""
    if not NAME.fullmatch(name):
        return []
    query = select(ModelVersion).where(ModelVersion.model == name, ModelVersion.withdrawn_at.is_(None))
    return list(session.scalars(query.order_by(ModelVersion.version.desc()).limit(limit)))
