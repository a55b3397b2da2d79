"""Use cases of models: serve an experiment's weights under a name, list, roll back, delete."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from models.errors import Conflict, CorruptFile, TooManyRequests
from models.model_names import NAME, check_name
from models.settings import Settings
from models.store import Store, experiments, registry
from models.store.states import WeightsChoice
from service.http.access import Caller
from service.http.fields import read_fields
from service.http.paging import damaged_cursor, read_cursor
from service.http.preconditions import ANYTHING, Precondition
from service.http.routing import MAX_ID
from service.predictions.predictor import Predictor
from service.registry.documents import (
    ModelDocument,
    ModelPage,
    VersionPage,
    model_document,
    version_document,
)


class Assignment(BaseModel):
    """The body that assigns an experiment's weights to a model's next version."""

    model_config = ConfigDict(extra="forbid", strict=True)

    experiment_id: int = Field(ge=1, le=MAX_ID, description="An experiment that has ended.")
    weights: WeightsChoice = Field(
        default=WeightsChoice.BEST, strict=False, description="Its weights of the best or the last epoch."
    )


@dataclass(frozen=True, slots=True)
class Models:
    """The lab's models."""

    settings: Settings
    store: Store
    predictor: Predictor

    def put(self, name: str, body: Any, caller: Caller, when: Precondition = ANYTHING) -> tuple[ModelDocument, bool]:
        """Create a name's next version, which is served from now on. Returns it and whether the name is new.

        The weights are read and checked first. Raises InvalidRequest for an invalid name or body, NotFound for an
        unknown experiment, Conflict for one that still trains or whose weights are missing or
        damaged, PreconditionFailed.
        """
        check_name(name)
        asked = read_fields(Assignment, body, example='{"experiment_id": 7}')
        with self.store.reading() as session:
            _check_ended(session, asked.experiment_id)
        try:
            weights = self.predictor.find(asked.experiment_id, asked.weights.value).weights
        except CorruptFile as error:
            raise Conflict(f"{error.detail}, so no version is made of them", fix="name other weights") from error
        with self.store.writing() as session:
            when.check(lambda: model_document(registry.current(session, name)))
            _check_ended(session, asked.experiment_id)
            self._check_quota(session, caller)
            made = registry.add_version(
                session,
                name,
                experiment_id=asked.experiment_id,
                weights=asked.weights,
                epoch=weights.epoch,
                sha256=weights.sha256,
                owner=caller.name,
            )
            return model_document(made), made.version == 1

    def get(self, name: str) -> ModelDocument:
        """The version that a name serves. Raises NotFound."""
        with self.store.reading() as session:
            return model_document(registry.current(session, name))

    def rollback(self, name: str, to: int | None, when: Precondition = ANYTHING) -> ModelDocument:
        """Serve the previous version again, or an earlier one by its number. Raises PreconditionFailed."""
        with self.store.writing() as session:
            when.check(lambda: model_document(registry.current(session, name)))
            return model_document(registry.rollback(session, name, to))

    def withdraw(self, name: str, version: int) -> None:
        """Withdraw an earlier version, so that its experiment may be deleted."""
        with self.store.writing() as session:
            registry.withdraw(session, name, version)

    def delete(self, name: str, when: Precondition = ANYTHING) -> None:
        """Remove a name with its versions. Raises NotFound, PreconditionFailed."""
        with self.store.writing() as session:
            served = model_document(registry.current(session, name))
            when.check(lambda: served)
            registry.delete(session, name)

    def list(self, cursor: str | None, limit: int) -> ModelPage:
        """A page of names in alphabetical order. Raises InvalidRequest for a damaged cursor."""
        if cursor is not None and not NAME.fullmatch(cursor):
            raise damaged_cursor()
        with self.store.reading() as session:
            rows, more, total = registry.list_models(session, after=cursor or "", limit=limit)
            items = [model_document(row) for row in rows]
        return ModelPage(items=items, next=items[-1].name if more else None, total=total)

    def list_versions(self, name: str, cursor: str | None, limit: int) -> VersionPage:
        """A page of a name's versions, the newest first. Raises NotFound, InvalidRequest for a damaged cursor."""
        before = read_cursor(cursor)
        with self.store.reading() as session:
            serving = registry.current(session, name).version
            rows, more, total = registry.list_versions(session, name, before=before, limit=limit)
            items = [version_document(row, serving) for row in rows]
        return VersionPage(items=items, next=str(items[-1].version) if more else None, total=total)

    def _check_quota(self, session: Session, caller: Caller) -> None:
        if caller.name is None:
            return
        made = registry.count_versions(session, caller.name)
        if made >= self.settings.max_stored:
            raise TooManyRequests(
                f"'{caller.name}' has made {made} versions of models, of {self.settings.max_stored} allowed",
                fix="delete models that are no longer needed, or have EPOCHAL_MAX_STORED raised",
            )


def _check_ended(session: Session, experiment_id: int) -> None:
    """Raise Conflict for an experiment that still trains, since a version's weights must not change."""
    status = experiments.get(session, experiment_id).status
    if not status.terminal:
        raise Conflict(
            f"experiment {experiment_id} is {status}, and its weights may still change; a version's do not",
            fix="wait until it has ended, or cancel it",
        )
