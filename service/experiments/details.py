"""Changes of an experiment's name, tags and notes, as a PATCH gives them."""

from typing import Any

from models.spec.details import Details
from models.spec.experiment import ExperimentSpec
from service.http.errors import invalid_fields
from service.http.fields import read_fields


def read_details(document: Any) -> Details:
    """Read a PATCH's body. Raises InvalidRequest, which names each wrong field; fields of the spec never change."""
    if isinstance(document, dict):
        fixed = ExperimentSpec.model_fields.keys() - Details.model_fields.keys()
        message = "is part of the spec, which never changes; POST a new experiment"
        wrong = [field for field in document if field in fixed or field == "spec"]
        if wrong:
            raise invalid_fields({"field": field, "message": message} for field in wrong)
    return read_fields(Details, document, example='{"name": "first try", "tags": ["a"], "notes": "lr was too high"}')
