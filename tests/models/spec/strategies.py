"""Random specs, valid ones drawn from the fields themselves, so that a new field is covered when it is added."""

import json
import math
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from hypothesis import strategies as st
from pydantic import BaseModel, StringConstraints, ValidationError
from pydantic.fields import FieldInfo

from models.spec.experiment import ExperimentSpec
from models.spec.model import FAMILIES, NetworkSpec

Strategy = st.SearchStrategy[Any]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if annotation is NetworkSpec:
        return list(dict.fromkeys(FAMILIES.values()))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _from_type(annotation: Any, limits: list[Any]) -> Strategy:
    """JSON for a type within its limits."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [item for part in arguments[1:] for item in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return _from_type(arguments[0], [*inner, *limits])
    if origin in (Union, UnionType):
        return st.one_of(*(_from_type(part, limits) for part in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    low = next((limit.ge for limit in limits if isinstance(limit, Ge)), None)
    high = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    shortest = next((limit.min_length for limit in limits if isinstance(limit, MinLen)), 0)
    longest = next((limit.max_length for limit in limits if isinstance(limit, MaxLen)), None)
    if origin is tuple:
        if arguments[-1] is not Ellipsis:
            return st.tuples(*(_from_type(part, []) for part in arguments)).map(list)
        return st.lists(_from_type(arguments[0], []), min_size=shortest, max_size=min(longest or 4, shortest + 3))
    if annotation is NoneType:
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(low, high)
    if annotation is float:
        floats = st.floats(low, high, allow_nan=False, allow_infinity=False)
        whole = math.ceil(low), math.floor(high)  # a whole number may be written without its point
        return floats | st.integers(*whole) if whole[0] <= whole[1] else floats
    if annotation is str:
        pattern = next(
            (limit.pattern for limit in limits if isinstance(limit, StringConstraints) and limit.pattern), None
        )
        if pattern is not None:
            return st.from_regex(pattern, fullmatch=True)
        return TEXT.filter(lambda text: len(text.strip()) >= shortest)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return st.sampled_from([member.value for member in annotation])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.one_of(*map(_from_model, _models_in(annotation)))
    return TEXT.filter(lambda text: len(text.strip()) >= 1)  # Tag: text with constraints of pydantic's own


def _from_model(cls: type[BaseModel]) -> Strategy:
    """JSON for a part: some of its keys, required ones always, the name of its kind always."""
    required, optional = {}, {}
    for name, field in cls.model_fields.items():
        always = field.is_required() or name == "name"
        (required if always else optional)[name] = _from_type(field.annotation, list(field.metadata))
    return st.fixed_dictionaries(required, optional=optional)


def _keeps_the_rules(body: dict[str, Any]) -> bool:
    """Whether rules between fields hold too."""
    try:
        ExperimentSpec.model_validate_json(json.dumps(body))
    except ValidationError:
        return False
    return True


SPECS = _from_model(ExperimentSpec).filter(_keeps_the_rules)
"""JSON of valid specs."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def keys_of(cls: type[BaseModel] = ExperimentSpec) -> list[str]:
    """Every key that a spec can have, at any level."""
    found = set(cls.model_fields)
    for field in cls.model_fields.values():
        for part in _models_in(field.annotation):
            found |= set(keys_of(part))
    return sorted(found)
