"""What every part of a spec shares: frozen, strict, no unknown keys, no NaN."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen part of a spec. `true` is not 1, "3" is not 3, and a key that is not listed is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True, use_enum_values=False
    )
