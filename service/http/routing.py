"""Strict routes: invalid ids, unknown and repeated query parameters are errors."""

import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from difflib import get_close_matches
from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.responses import Response

from models.errors import FieldError, InvalidRequest
from service.http.dependencies import authorise_viewer, get_caller
from service.http.errors import invalid_fields, shown

MAX_QUERY_BYTES = 16_000
MAX_PARAMETERS = 64
MOST_GUESSES = 10
"""Unknown parameters for which a similar known one is looked for."""
MAX_ID = 2**31 - 1
"""The largest id; ids count up from 1."""


def _plain_number(text: Any) -> Any:
    if isinstance(text, str) and not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise ValueError("not an id")
    return text


Id = Annotated[
    int,
    Field(ge=1, le=MAX_ID),
    BeforeValidator(_plain_number),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_ID}),
    Path(description="An id, as in lists."),
]


class StrictRoute(APIRoute):
    """A route that refuses unknown and repeated query parameters, where FastAPI drops them silently.

    Authentication and rate limits are applied before the query is checked.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = sorted(set(_query_names(self.dependant)))
        # Routers add the authenticating dependency after this has run, so get_caller is assumed where none is found.
        identify = next((call for call in _calls(self.dependant) if call in CALLERS), get_caller)
        if self.path in PUBLIC:
            identify = None

        async def checked(request: Request) -> Response:
            if request.scope["query_string"] and (error := _wrong_query(request, known)):
                if identify is not None:
                    await identify(request)
                raise error
            return await handle(request)

        return checked


class DirectRoute(StrictRoute):
    """A StrictRoute for busy addresses that a viewer may POST to; without a query its endpoint is called directly.

    FastAPI's solving of dependencies takes as long as a small network. The endpoint takes the request, the path's
    parameters, and those of the query, whose defaults hold here; it returns a response.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        solve, call, in_path = super().get_route_handler(), self.endpoint, self.dependant.path_params

        async def direct(request: Request) -> Response:
            if request.scope["query_string"]:
                return await solve(request)
            await authorise_viewer(request, await get_caller(request))
            given = {}
            for field in in_path:
                given[field.name], errors = field.validate(request.path_params[field.alias], loc=("path", field.alias))
                if errors:
                    return await solve(request)
            response: Response = await call(request, **given)
            return response

        return direct


PUBLIC = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/login", "/logout", "/static/{name}"}
"""Routes that need no authentication."""
CALLERS: set[Any] = {get_caller}
"""Dependencies that authenticate the caller."""


def _calls(dependant: Any) -> Iterator[Any]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls(inner)


def _wrong_query(request: Request, known: list[str]) -> InvalidRequest | None:
    """Check the query's parameter names: unknown, repeated, too many. None if all are valid."""
    query: bytes = request.scope["query_string"]
    if query.count(b"&") >= MAX_PARAMETERS or len(query) > MAX_QUERY_BYTES:
        return InvalidRequest(
            f"the query has {query.count(b'&') + 1:,} parameters in {len(query):,} bytes",
            fix=f"send at most {MAX_PARAMETERS} parameters in {MAX_QUERY_BYTES:,} bytes",
        )
    given = request.query_params.multi_items()
    counts = Counter(name for name, _ in given)
    unknown = [name for name in counts if name not in known]
    entries: list[FieldError] = [
        _unknown(name, known, guess=number < MOST_GUESSES) for number, name in enumerate(unknown)
    ]
    entries += [
        {"field": name, "message": f"is given {count} times; give it once"}
        for name, count in counts.items()
        if count > 1 and name in known
    ]
    entries += [{"field": name, "message": "holds a NUL character"} for name, value in given if "\0" in value]
    return invalid_fields(entries) if entries else None


def _query_names(dependant: Any) -> list[str]:
    names = [parameter.alias for parameter in dependant.query_params]
    return names + [name for inner in dependant.dependencies for name in _query_names(inner)]


def _unknown(name: str, known: list[str], *, guess: bool) -> FieldError:
    nearest = get_close_matches(name[:100], known, n=1, cutoff=0.5) if guess else []
    hint = f"; did you mean '{nearest[0]}'?" if nearest else f"; known are {', '.join(known)}" if known else ""
    entry: FieldError = {"field": shown(name), "message": f"is not a parameter of this address{hint}"}
    return {**entry, "nearest": nearest[0]} if nearest else entry
