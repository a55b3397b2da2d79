"""Conditional changes (RFC 9110, 13.1): a request with If-Match changes only what the client has seen.

GET answers with a strong ETag, a digest of the document. A PATCH, PUT, DELETE or rollback that carries it in If-Match
is refused with 412 where the document is another by now, so that nobody overwrites a change that they do not know of.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from models.errors import EpochalError, NotFound
from service.http.compression import plain_tag
from service.http.rendered import is_known

IF_MATCH = "The ETag of a GET: change the resource only if it still has this ETag, else 412. `*`: only if it exists."
IF_NONE_MATCH = "`*`: only if it does not exist yet, else 412."


class PreconditionFailed(EpochalError):
    """A change of a resource that is no longer as the client has seen it."""

    code = "precondition-failed"
    status = 412
    title = "The resource has changed since"


def version_of(document: BaseModel) -> str:
    """The strong ETag of a document: of what its JSON says, in whichever coding it is sent."""
    return _tag_of(document.model_dump_json())


def _tag_of(body: str) -> str:
    return f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'


def respond_with_version(request: Request, document: BaseModel) -> Response:
    """Serialise a document into a response with its ETag, or 304 if If-None-Match has it."""
    body = document.model_dump_json()
    headers = {"ETag": _tag_of(body), "Cache-Control": "private, no-cache"}
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@dataclass(frozen=True, slots=True)
class Precondition:
    """The headers If-Match and If-None-Match of a request that changes something."""

    if_match: str = ""
    if_none_match: str = ""

    def check(self, find: Callable[[], BaseModel]) -> None:
        """Raise PreconditionFailed unless the resource is as the request demands.

        Call it in the transaction that changes the resource. `find` makes the document that a GET would answer with,
        and raises NotFound where there is none; it is called only if there is a condition.
        """
        if not self.if_match and not self.if_none_match:
            return
        try:
            tag = version_of(find())
        except NotFound:
            tag = None
        if self.if_match and not _names(self.if_match, tag):
            now = f"its ETag is {tag} now" if tag else "it does not exist"
            raise PreconditionFailed(
                f"If-Match is {self.if_match[:200]}, and {now}", fix="GET it again, and send its ETag as If-Match"
            )
        if self.if_none_match and _names(self.if_none_match, tag):
            raise PreconditionFailed(
                f"If-None-Match is {self.if_none_match[:200]}, and its ETag is {tag}",
                fix="leave the header out, or send If-Match with that ETag",
            )


ANYTHING = Precondition()
"""No condition."""


def _names(header: str, tag: str | None) -> bool:
    """Whether a header names the tag, by strong comparison: a weak tag (W/"...") names nothing."""
    if tag is None:
        return False
    return header.strip() == "*" or tag in {plain_tag(part.strip()) for part in header.split(",")}


async def get_precondition(
    request: Request,
    if_match: Annotated[str | None, Header(description=IF_MATCH)] = None,
    if_none_match: Annotated[str | None, Header(description=IF_NONE_MATCH)] = None,
) -> Precondition:
    """Read the conditions of a request; a header that is sent twice counts as one list."""
    lists = (",".join(request.headers.getlist(name)) for name in ("if-match", "if-none-match"))
    return Precondition(*lists)


PreconditionDep = Annotated[Precondition, Depends(get_precondition)]
