"""Pictures as responses: their formats, their headers, and how the OpenAPI document shows them."""

from enum import StrEnum
from typing import Any

from service.http.headers import SVG_POLICY


class Picture(StrEnum):
    """A format of a picture."""

    PNG = "png"
    """Pixels."""
    SVG = "svg"
    """Vectors."""


MEDIA_TYPES = {Picture.PNG: "image/png", Picture.SVG: "image/svg+xml"}
BINARY = {"schema": {"type": "string", "format": "binary"}}
TEXT = {"schema": {"type": "string"}}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "What If-None-Match names is still right."}}
ETAG = {"ETag": {"description": "Changes when the answer does.", "schema": {"type": "string"}}}


def picture_responses(**also: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """A picture, or the news that it has not changed; `also` are further forms by media type."""
    content = {"image/png": BINARY, "image/svg+xml": TEXT, **also}
    return {200: {"description": "The picture.", "content": content, "headers": ETAG}, **NOT_MODIFIED}


def picture_headers(picture: Picture) -> dict[str, str]:
    """An SVG opened by itself is a document: it may style itself and do nothing else."""
    return {"Content-Security-Policy": SVG_POLICY} if picture is Picture.SVG else {}
