"""What JSON documents of every noun share: their base, the root of the API's addresses, and a quick answer."""

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

API = "/api/v1"


class Document(BaseModel):
    """A document's members are what is listed; what they hold may grow."""

    model_config = ConfigDict(extra="forbid")


def respond(document: BaseModel) -> Response:
    """A document as an answer, for routes that are asked often: FastAPI would check and convert it once more."""
    return Response(document.model_dump_json(), media_type="application/json")
