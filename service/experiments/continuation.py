"""Continues a completed experiment with more epochs, as a new experiment."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.findings import FindingJson, Severity, WarningCode
from models.networks.warning import warning
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_spec
from models.store.tables import Experiment
from service.http.errors import invalid_fields
from service.http.fields import read_fields

MAX_EPOCHS = 10_000


class Continuation(BaseModel):
    """The body of a continuation: how many more epochs to train."""

    model_config = ConfigDict(extra="forbid", strict=True)

    epochs: int = Field(ge=1, le=MAX_EPOCHS, description="How many epochs more.")
    name: str | None = Field(default=None, max_length=200, description="The new experiment's name.")


def read_continuation(document: Any) -> Continuation:
    """Read the body. Raises InvalidRequest, which names each wrong field."""
    return read_fields(Continuation, document, example='{"epochs": 20}')


@dataclass(frozen=True, slots=True)
class Continued:
    """The spec of a continuation, and the warnings about it."""

    spec: ExperimentSpec
    warnings: list[FindingJson]


def continued(original: Experiment, done: int, asked: Continuation) -> Continued:
    """The spec of an experiment that continues after the `done` epochs of another, with its present name and tags.

    Raises InvalidRequest for more epochs in all than a spec can have.
    """
    spec = load_spec(original.spec)
    total = done + asked.epochs
    if total > MAX_EPOCHS:
        message = f"makes {total:,} with the {done:,} of experiment {original.id}, of {MAX_EPOCHS:,} allowed"
        raise invalid_fields([{"field": "epochs", "message": message, "nearest": MAX_EPOCHS - done}])
    name = original.name if asked.name is None else asked.name
    longer = spec.model_copy(update={"name": name, "tags": tuple(original.tags), "epochs": total})
    return Continued(longer, [*original.warnings, *_stretched(longer, done)])


def _stretched(spec: ExperimentSpec, done: int) -> list[FindingJson]:
    if not spec.lr_scheduler.spans_training:
        return []
    return [
        warning(
            WarningCode.SCHEDULE_STRETCHED,
            f"The {spec.lr_scheduler.name} schedule spans all epochs: over {spec.epochs:,} instead of {done:,} it is "
            f"stretched, and the learning rate of epoch {done + 1:,} is higher than that of epoch {done:,}.",
            {"epochs": spec.epochs, "done": done},
            "Train it from the start with more epochs, if one descent of the rate is wanted.",
            severity=Severity.INFO,
        )
    ]
