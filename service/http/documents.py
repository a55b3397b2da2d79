"""Shared by all JSON documents: their base class, the API's root path, and a fast response."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

API = "/api/v1"
INFERENCE = "/v2"
"""Below it the Open Inference Protocol is spoken, whose clients look for errors of its own form."""

Responses = dict[int | str, dict[str, Any]]
"""Descriptions of answers by their status, in the form that FastAPI's `responses` takes."""


class Document(BaseModel):
    """Base class of JSON documents: no members beyond the declared ones."""

    model_config = ConfigDict(extra="forbid")


def respond(document: BaseModel) -> Response:
    """Serialise a document into a response, for busy routes: FastAPI would validate and convert it once more."""
    return Response(document.model_dump_json(), media_type="application/json")
