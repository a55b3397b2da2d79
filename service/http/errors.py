"""Exception handlers: every error is rendered as a problem document (RFC 9457), here and nowhere else."""

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

from models.errors import EpochalError, FieldError, InvalidRequest, NotFound, StorageFull
from models.files import NO_SPACE
from models.plain import JsonObject
from service.http.documents import INFERENCE, Responses
from service.http.negotiation import choose_type
from service.http.prefix import with_prefix, with_prefix_in

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
    """A request's head or body arrived too slowly."""

    code = "request-timeout"
    status = 408
    title = "The request took too long to arrive"


class BadRequest(EpochalError):
    """A request that violates HTTP or its declared format, such as a multipart body without its boundary."""

    code = "bad-request"
    status = 400
    title = "The request is malformed"


class NotAcceptable(EpochalError):
    """A request whose Accept header excludes every media type of its address."""

    code = "not-acceptable"
    status = 406
    title = "Not acceptable: none of the requested media types is available"


class FieldProblem(BaseModel):
    """A problem with one field, parameter or part."""

    model_config = ConfigDict(extra="allow")

    field: str = Field(description="The field, as a dotted path.")
    message: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """An error, by RFC 9457. Extension members depend on `code`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Where this kind of problem is described.")
    title: str = Field(description="A short summary of the kind of problem.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was received and which rule it broke.")
    code: str = Field(description="The kind of problem, for programs.")
    fix: str | None = Field(default=None, description="How to correct it.")
    errors: list[FieldProblem] | None = Field(default=None, description="One entry per field.")


PROBLEM_CONTENT = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
ANY_PROBLEM: Responses = {"default": {"description": "A problem.", "content": PROBLEM_CONTENT}}


def problems(*statuses: int) -> Responses:
    """Describe a route's error statuses for the OpenAPI document; all others are under `default`."""
    named: Responses = {
        status: {"description": HTTPStatus(status).phrase + ".", "content": PROBLEM_CONTENT} for status in statuses
    }
    return {**named, **ANY_PROBLEM}


def problem_document(error: EpochalError) -> JsonObject:
    """Build the members of a problem document from an error; at most MAX_PROBLEM_BYTES as JSON."""
    document = _members(error)
    if _num_bytes(document) > MAX_PROBLEM_BYTES:
        document = {key: _cut(value) for key, value in document.items()}
    while _num_bytes(document) > MAX_PROBLEM_BYTES:  # extension members; the largest go first
        del document[max(document.keys() - REQUIRED, key=lambda key: _num_bytes(document[key]))]
    return document


def _members(error: EpochalError) -> JsonObject:
    kind = with_prefix(f"/docs#{error.code}")
    document: JsonObject = {"type": kind, **error.as_problem()}
    if error.fix:
        document["fix"] = with_prefix_in(error.fix)
    return document


def _num_bytes(value: Any) -> int:
    return len(json.dumps(value, default=str))


def _cut(value: Any, depth: int = 0) -> Any:
    """Truncate long text, lists and objects inside a value."""
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
    """Build the response for an error, with the headers that its status requires (Retry-After, WWW-Authenticate)."""
    all_headers = dict(headers or {})
    if (seconds := error.extra.get("retry_after_seconds")) is not None:
        all_headers["Retry-After"] = str(max(1, round(seconds)))
    if error.status == 401:
        all_headers["WWW-Authenticate"] = 'Bearer realm="epochal"'
    if error.status == 408:
        all_headers["Connection"] = "close"
    # ASCII only, so that any text quoted from the request can be encoded, lone surrogates too.
    body = json.dumps(problem_document(error), default=str)
    return Response(body, status_code=error.status, headers=all_headers, media_type=PROBLEM_TYPE)


def error_response(path: str, error: EpochalError, headers: Mapping[str, str] | None = None) -> Response:
    """An error in the form that clients of an address read: a problem document, or the inference protocol's own."""
    response = problem_response(error, headers)
    if path != INFERENCE and not path.startswith(f"{INFERENCE}/"):
        return response
    document = problem_document(error)
    text = f"{document['detail']}; {document['fix']}" if "fix" in document else document["detail"]
    status = 400 if error.status in (415, 422) else error.status  # the protocol knows 400 for what is wrongly asked
    headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
    return Response(json.dumps({"error": text}), status_code=status, headers=headers, media_type="application/json")


def unexpected(incident: str) -> EpochalError:
    """Build the error for an unhandled exception: it gives the client only an incident number to find in the log."""
    return EpochalError(
        "The lab failed with an unexpected error; the request itself may well be valid",
        fix=f"look for {incident} in the API's log",
        incident=incident,
    )


def install_handlers(app: FastAPI, *, render_page: Callable[[JsonObject], Response]) -> None:
    """Register handlers that render EpochalError, validation errors, HTTPException and OSError as problem documents.

    `render_page` renders a document as an HTML page, for browsers.
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
        detail = f"the request could not be stored on disk: {error.strerror}"
        return _respond(request, StorageFull(detail, fix="free disk space and send it again"))
    raise error


def _respond(request: Request, error: EpochalError, headers: Mapping[str, str] | None = None) -> Response:
    """Respond with a problem document, or an HTML page if the client prefers one and the path is outside the API."""
    forms = (PROBLEM_TYPE, "text/html")
    path = request.url.path
    if path.startswith(("/api/", INFERENCE)) or choose_type(request.headers.get("accept"), forms) != "text/html":
        return error_response(path, error, headers)
    page: Response = request.app.state.render_problem_page(problem_document(error))
    page.headers.update(headers or {})
    return page


def _nothing_there(request: Request) -> Response:
    """Respond with 404 that suggests the nearest existing address, or redirect there if it is a page.

    The API never redirects: many clients do not follow, or repeat a POST as a GET, and then show an empty answer
    instead of an error.
    """
    path = request.url.path
    detail = f"there is no resource at {shown(path)}"
    plain = re.sub("/{2,}", "/", path).rstrip("/") or "/"
    for meant in (plain, f"/api/v1{plain}") if not _allowed_methods(request, path) else ():  # else the id is wrong
        if not (methods := _allowed_methods(request, meant)):
            continue
        if request.method in ("GET", "HEAD") and "GET" in methods and not meant.startswith("/api/"):
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(with_prefix(meant) + query, status_code=308)
        return _respond(request, NotFound(detail, fix=f"use {with_prefix(shown(meant))}"))
    return _respond(request, NotFound(detail, fix=STARLETTE_FIXES[404]))


def _allowed_methods(request: Request, path: str) -> list[str]:
    """List the methods of all routes at a path; Starlette's router reports those of the first route only."""
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "path": path, "method": method})[0] is Match.FULL for route in routes)
    ]


def invalid_fields(entries: Iterable[FieldError]) -> InvalidRequest:
    """Combine the entries of several invalid fields into one error."""
    found = list(islice(entries, MOST_ENTRIES))
    detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in found)
    return InvalidRequest(detail, errors=found)


def shown(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """Truncate text from a request for quoting in a message."""
    return text if len(text) <= most else text[: most - 3] + "..."


def message_of(text: str) -> str:
    """Return a message of Pydantic as it follows a field name: in lower case, without "Value error"."""
    text = text.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _field_problem(item: JsonObject) -> FieldError:
    location = [str(part) for part in item["loc"]]
    name = ".".join(location[1:]) or location[0]
    entry: FieldError = {"field": name, "message": message_of(item["msg"])}
    if isinstance(value := item.get("input"), str | int | float | bool):
        entry["value"] = shown(value) if isinstance(value, str) else value
        entry["message"] += f", not {json.dumps(entry['value'])}"
    context = item.get("ctx", {})
    for bound in ("ge", "le"):
        if bound in context:
            entry["nearest"] = context[bound]
    return entry
