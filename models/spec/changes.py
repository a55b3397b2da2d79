"""Changes fields of a spec and validates the result."""

from collections.abc import Mapping
from typing import Any

from models.spec.advice import put
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec


def with_changes(spec: ExperimentSpec, changes: Mapping[str, Any]) -> ExperimentSpec:
    """The spec with fields set, written with dots as errors write them: {"model.head.hidden": [32], "ema_decay": None}.

    Raises SpecError if the result is not a valid spec.
    """
    body = spec.as_json()
    for field, value in changes.items():
        put(body, field, value)
    return parse_spec(body)
