"""A study's base spec with some of its fields changed: the spec of a row, or of a trial."""

from collections.abc import Mapping
from typing import Any

from models.plain import JsonObject
from models.spec.advice import put
from models.spec.experiment import ExperimentSpec
from models.spec.explain import fail
from models.spec.parse import merge, normalise, parse_spec
from models.spec.plain import copy_plain
from models.spec.study import StudySpec


def spec_with(study: StudySpec, overrides: Mapping[str, Any], title: str) -> ExperimentSpec:
    """The base spec with overrides, nested or with dots, named for the study and the title. Raises SpecError."""
    nested: JsonObject = {}
    of_lists = {field: value for field, value in overrides.items() if any(part.isdigit() for part in field.split("."))}
    for field, value in overrides.items():
        if field not in of_lists:
            one: JsonObject = {}
            put(one, field, value)
            _join(nested, one, field)
    body = merge(normalise(copy_plain(study.base)), normalise(nested))
    if "name" not in overrides:
        body["name"] = f"{study.title}: {title}"[:200]
    spec = parse_spec(body)
    return _with_entries(spec, of_lists) if of_lists else spec


def _join(into: JsonObject, more: Mapping[str, Any], field: str) -> None:
    """Add an override to the others, of which it may be a part. Raises SpecError where both set a value."""
    for name, value in more.items():
        known = into.get(name)
        if name not in into:
            into[name] = value
        elif isinstance(known, dict) and isinstance(value, dict):
            _join(known, value, field)
        elif known != value:
            fail(field, "cannot be set beside the other overrides, which set it too; write the part as one object")


def _with_entries(spec: ExperimentSpec, changes: Mapping[str, Any]) -> ExperimentSpec:
    """The spec with entries of its lists changed: model.blocks.0.convs.0.channels."""
    body = spec.as_json()
    for field, value in changes.items():
        try:
            put(body, field, value)
        except (TypeError, AttributeError, KeyError, ValueError, IndexError):
            fail(field, "is not an entry of a list that the spec has")
    return parse_spec(body)


def overlap(field: str, key: str) -> bool:
    """Whether one of two fields is the other or a part of it."""
    return field == key or field.startswith(f"{key}.") or key.startswith(f"{field}.")
