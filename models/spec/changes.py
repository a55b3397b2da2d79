"""A spec with some of its fields changed, read again from the start."""

from collections.abc import Mapping
from typing import Any

from models.spec.advice import put
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec


def with_changes(spec: ExperimentSpec, changes: Mapping[str, Any]) -> ExperimentSpec:
    """The spec with fields set, written with dots as errors write them: {"model.head.hidden": [32], "ema_decay": None}.

    Raises SpecError when what comes out is no valid spec.
    """
    body = spec.as_json()
    for field, value in changes.items():
        put(body, field, value)
    return parse_spec(body)
