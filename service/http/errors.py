"""Every error leaves the API as one problem document (RFC 9457), rendered here and nowhere else."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match

from models.errors import EpochalError, InvalidRequest, NotFound, StorageFull
from models.files import NO_SPACE
from service.http.negotiation import choose_type
from service.http.prefix import under, under_in

PROBLEM_TYPE = "application/problem+json"
STARLETTE_FIXES = {
    404: "GET /docs lists every address",
    405: "the Allow header lists the methods that this address takes",
}
SHOWN_CHARACTERS = 200
MAX_PROBLEM_BYTES = 16_000
MOST_CHARACTERS = 1500
MOST_ENTRIES = 50
REQUIRED = {"type", "title", "status", "detail", "code", "fix"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class RequestTimeout(EpochalError):
    """A request that arrived too slowly to be waited for."""

    code = "request-timeout"
    status = 408
    title = "The request took too long to arrive"


class BadRequest(EpochalError):
    """A request that breaks HTTP itself or the format it claims: a multipart body without its boundary, say."""

    code = "bad-request"
    status = 400
    title = "The request is malformed"


class NotAcceptable(EpochalError):
    """A request that asks for media types of which this address has none."""

    code = "not-acceptable"
    status = 406
    title = "That form is not to be had here"


class FieldProblem(BaseModel):
    """What is wrong with one field, parameter or part."""

    model_config = ConfigDict(extra="allow")

    field: str = Field(description="Where, as a dotted path.")
    message: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """An error, by RFC 9457. Extension members depend on `code`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Where this kind of problem is described.")
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was received and which rule it broke.")
    code: str = Field(description="The kind of problem, for programs.")
    fix: str | None = Field(default=None, description="What to do about it.")
    errors: list[FieldProblem] | None = Field(default=None, description="One entry a field, where there are several.")


PROBLEM_CONTENT = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
ANY_PROBLEM: dict[int | str, dict[str, Any]] = {"default": {"description": "A problem.", "content": PROBLEM_CONTENT}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer beside success, for the OpenAPI document; anything else is under `default`."""
    named: dict[int | str, dict[str, Any]] = {
        status: {"description": HTTPStatus(status).phrase + ".", "content": PROBLEM_CONTENT} for status in statuses
    }
    return {**named, **ANY_PROBLEM}


def problem_document(error: EpochalError) -> dict[str, Any]:
    """An error as the members of a problem document, of a bounded size whatever it quotes."""
    document = _members(error)
    if _num_bytes(document) > MAX_PROBLEM_BYTES:
        document = {key: _cut(value) for key, value in document.items()}
    while _num_bytes(document) > MAX_PROBLEM_BYTES:  # extension members; the largest go first
        del document[max(document.keys() - REQUIRED, key=lambda key: _num_bytes(document[key]))]
    return document


def _members(error: EpochalError) -> dict[str, Any]:
    document = {
        "type": under(f"/docs#{error.code}"),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.fix:
        document["fix"] = under_in(error.fix)
    return document | {key: value for key, value in error.extra.items() if key not in document}


def _num_bytes(value: Any) -> int:
    return len(json.dumps(value, default=str))


def _cut(value: Any, depth: int = 0) -> Any:
    """A value with what is long in it cut off."""
    if isinstance(value, str):
        return shown(value, MOST_CHARACTERS if depth == 0 else SHOWN_CHARACTERS)
    if isinstance(value, list | tuple):
        more = len(value) - MOST_ENTRIES
        cut = [_cut(item, depth + 1) for item in value[:MOST_ENTRIES]]
        return [*cut, {"field": "body", "message": f"and {more:,} more"}] if more > 0 and _are_entries(cut) else cut
    if isinstance(value, dict):
        return {shown(str(key)): _cut(value[key], depth + 1) for key in list(value)[:MOST_ENTRIES]}
    return value


def _are_entries(found: list[Any]) -> bool:
    return all(isinstance(entry, dict) and "field" in entry for entry in found)


def problem_response(error: EpochalError, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a response, with the headers that its status calls for."""
    all_headers = dict(headers or {})
    if (seconds := error.extra.get("retry_after_seconds")) is not None:
        all_headers["Retry-After"] = str(max(1, round(seconds)))
    if error.status == 401:
        all_headers["WWW-Authenticate"] = 'Bearer realm="epochal"'
    if error.status == 408:
        all_headers["Connection"] = "close"
    # ASCII throughout, so that whatever text was sent and is quoted back, half a surrogate pair too, can be encoded.
    body = json.dumps(problem_document(error), default=str)
    return Response(body, status_code=error.status, headers=all_headers, media_type=PROBLEM_TYPE)


def unexpected(incident: str) -> EpochalError:
    """What a client is told of a fault of ours: nothing but where to find it in the log."""
    return EpochalError(
        "The lab met an error that it did not expect; nothing is known about your request being at fault",
        fix=f"look for {incident} in the API's log",
        incident=incident,
    )


def install_handlers(app: FastAPI, *, render_page: Callable[[dict[str, Any]], Response]) -> None:
    """Render Epochal's errors, FastAPI's, Starlette's and the disk's as problem documents.

    `render_page` makes a page of a document, for browsers.
    """
    app.state.render_problem_page = render_page
    app.add_exception_handler(EpochalError, _render_own)
    app.add_exception_handler(RequestValidationError, _render_validation)
    app.add_exception_handler(HTTPException, _render_starlette)
    app.add_exception_handler(OSError, _render_disk)


async def _render_own(request: Request, error: Exception) -> Response:
    assert isinstance(error, EpochalError)
    return _respond(request, error)


async def _render_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(item["loc"][:1] == ("path",) for item in details):
        return _nothing_there(request)
    return _respond(request, invalid_fields(_field_problem(item) for item in details))


async def _render_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    failure = EpochalError(str(error.detail), fix=STARLETTE_FIXES.get(error.status_code))
    failure.status, failure.title = error.status_code, phrase
    failure.code = phrase.lower().replace(" ", "-").replace("'", "")
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return _nothing_there(request)
    if error.status_code == 405:
        failure.detail = f"{shown(request.url.path)} does not take {request.method}"
        headers["Allow"] = ", ".join(_allowed_methods(request, request.url.path))
    return _respond(request, failure, headers)


async def _render_disk(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        detail = f"the request could not be kept on disk: {error.strerror}"
        return _respond(request, StorageFull(detail, fix="make room and send it again"))
    raise error


def _respond(request: Request, error: EpochalError, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document or, for a browser that looks at pages, the same as one."""
    forms = (PROBLEM_TYPE, "text/html")
    if request.url.path.startswith("/api/") or choose_type(request.headers.get("accept"), forms) != "text/html":
        return problem_response(error, headers)
    page: Response = request.app.state.render_problem_page(problem_document(error))
    page.headers.update(headers or {})
    return page


def _nothing_there(request: Request) -> Response:
    """404, with the address that was meant if that shows. A reader of pages is sent there at once.

    The API never redirects: many clients do not follow, or follow a POST with a GET, and then show an empty answer
    where an error would have said what to change.
    """
    path = request.url.path
    detail = f"there is nothing at {shown(path)}"
    plain = re.sub("/{2,}", "/", path).rstrip("/") or "/"
    for meant in (plain, f"/api/v1{plain}") if not _allowed_methods(request, path) else ():  # else an id is wrong
        if not (methods := _allowed_methods(request, meant)):
            continue
        if request.method in ("GET", "HEAD") and "GET" in methods and not meant.startswith("/api/"):
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(under(meant) + query, status_code=308)
        return _respond(request, NotFound(detail, fix=f"use {under(shown(meant))}"))
    return _respond(request, NotFound(detail, fix=STARLETTE_FIXES[404]))


def _allowed_methods(request: Request, path: str) -> list[str]:
    """Every method that some route takes at this path: the router itself names those of the first one only."""
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "path": path, "method": method})[0] is Match.FULL for route in routes)
    ]


def invalid_fields(entries: Iterable[dict[str, Any]]) -> InvalidRequest:
    """One error out of several wrong fields."""
    found = list(islice(entries, MOST_ENTRIES))
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in found)
    return InvalidRequest(detail, errors=found)


def shown(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """Text that was sent, short enough to be quoted back."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _field_problem(item: dict[str, Any]) -> dict[str, Any]:
    location = [str(part) for part in item["loc"]]
    name = ".".join(location[1:]) or location[0]
    message = item["msg"][:1].lower() + item["msg"][1:]
    entry: dict[str, Any] = {"field": name, "message": message.removeprefix("value error, ")}
    if isinstance(value := item.get("input"), str | int | float | bool):
        entry["value"] = shown(value) if isinstance(value, str) else value
        entry["message"] += f", not {json.dumps(entry['value'])}"
    context = item.get("ctx", {})
    for bound in ("ge", "le"):
        if bound in context:
            entry["nearest"] = context[bound]
    return entry
