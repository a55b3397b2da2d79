"""The base class of all parts of a spec: frozen, strict, without unknown keys and NaN."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Spec(BaseModel):
    """A frozen part of a spec. `true` is not 1, "3" is not 3, and a key that is not listed is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, use_enum_values=False
    )


def broken_rule(message: str, *, field: str, nearest: Any = None) -> PydanticCustomError:
    """To be raised by validators of rules between fields: `field` is the one to change, `nearest` what would do."""
    context = {"message": message, "field": field}
    return PydanticCustomError("rule", "{message}", context if nearest is None else {**context, "nearest": nearest})
