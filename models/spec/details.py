"""An experiment's name, tags and notes, which can be changed after its submission."""

from typing import Annotated

from pydantic import Field, StringConstraints

from models.spec.base import Spec
from models.spec.experiment import Tag

MAX_NOTES = 20_000


class Details(Spec):
    """Changes of an experiment's name, tags and notes: null empties one, omitted ones stay. The spec never changes."""

    name: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, description="A name for display; any text."
    )
    tags: tuple[Tag, ...] | None = Field(
        default=None, max_length=20, description="The complete list of tags; it replaces the present one."
    )
    notes: Annotated[str, StringConstraints(max_length=MAX_NOTES)] | None = Field(
        default=None, description="Notes; any text, with line breaks."
    )
