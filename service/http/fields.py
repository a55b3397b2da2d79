"""Reading a small JSON object into a Pydantic model, with one error that names each wrong field."""

import json
from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.errors import FieldError
from service.http.errors import invalid_fields, message_of

Model = TypeVar("Model", bound=BaseModel)


def read_fields(kind: type[Model], document: Any, *, example: str) -> Model:
    """Validate a request's body. Raises InvalidRequest with an entry for each wrong field.

    `example` is shown where the body is no object.
    """
    if not isinstance(document, dict):
        raise invalid_fields([{"field": "body", "message": f"must be an object, such as {example}"}])
    try:
        return kind.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise invalid_fields(_entry(found, kind.model_fields) for found in error.errors()) from None


def _entry(found: Any, known: Collection[str]) -> FieldError:
    field = ".".join(str(part) for part in found["loc"])[:100]
    if found["type"] == "extra_forbidden":
        return {"field": field, "message": f"is not a field here; known are {', '.join(known)}"}
    return {"field": field, "message": message_of(found["msg"])}
