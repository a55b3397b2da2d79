"""Picture responses: formats, headers, and their description in the OpenAPI document."""

from enum import StrEnum

from models.plain import JsonObject
from service.http.documents import Responses
from service.http.headers import SVG_POLICY


class Picture(StrEnum):
    """A picture's format."""

    PNG = "png"
    """Raster."""
    SVG = "svg"
    """Vectors."""


MEDIA_TYPES = {Picture.PNG: "image/png", Picture.SVG: "image/svg+xml"}
BINARY = {"schema": {"type": "string", "format": "binary"}}
TEXT = {"schema": {"type": "string"}}
NOT_MODIFIED: Responses = {304: {"description": "Not modified: the ETag in If-None-Match is current."}}
ETAG = {"ETag": {"description": "Changes with the content.", "schema": {"type": "string"}}}


def picture_responses(**also: JsonObject) -> Responses:
    """Describe the responses 200 and 304 of a picture for OpenAPI; `also` are further contents by media type."""
    content = {"image/png": BINARY, "image/svg+xml": TEXT, **also}
    return {200: {"description": "The picture.", "content": content, "headers": ETAG}, **NOT_MODIFIED}


def picture_headers(picture: Picture) -> dict[str, str]:
    """Return a picture's headers: an SVG, which a browser opens as a document, may style itself and run nothing."""
    return {"Content-Security-Policy": SVG_POLICY} if picture is Picture.SVG else {}
