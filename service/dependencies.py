"""What routes ask for by type: the parts of the lab, the caller, an id from the path, a slot to work in."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

import anyio
from anyio import to_thread
from celery import Celery
from fastapi import Depends, Path, Request
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.responses import Response

from models.errors import InvalidRequest
from models.settings import Settings
from models.store import Store
from models.store.stamps import Stamps
from models.store.states import Role
from service.experiments.listing import ListedItems
from service.experiments.live import LiveEvents
from service.experiments.submit import Inspector, Submissions
from service.health.check import Readiness
from service.health.instruments import Instruments
from service.http.access import Caller, Doorkeeper, check_role
from service.http.body import read_document
from service.http.errors import invalid_fields, shown
from service.http.perimeter import Gate
from service.http.rendered import Renderings
from service.predictions.predict import PredictionQueue
from service.predictions.predictor import Predictor

Answer = TypeVar("Answer")

MAX_QUERY_BYTES = 16_000
MAX_PARAMETERS = 64
MOST_GUESSES = 10
"""Unknown parameters for which the one that was meant is looked for."""
MAX_ID = 2**31 - 1
"""Ids count up from 1 one by one; a larger number is nobody's."""


@dataclass
class Services:
    """The parts of the lab that requests use, made once a process."""

    settings: Settings
    store: Store
    stamps: Stamps
    celery: Celery
    doorkeeper: Doorkeeper
    live: LiveEvents
    instruments: Instruments
    submissions: Submissions
    predictor: Predictor
    readiness: Readiness
    inspector: Inspector = field(default_factory=Inspector)
    renderings: Renderings = field(default_factory=Renderings)
    listed: ListedItems = field(default_factory=ListedItems)
    predictions: PredictionQueue = field(default_factory=PredictionQueue)
    measurements: Gate = field(default_factory=lambda: Gate("pre-flights", places=8, retry_after_seconds=10))
    writers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))

    def close(self) -> None:
        """Give back what is held beyond memory."""
        self.predictor.close()
        self.stamps.close()
        self.store.dispose()

    async def in_writer(self, work: Callable[..., Answer], *args: Any) -> Answer:
        """Run something that may wait for the database in a thread of the writers' own."""
        return await to_thread.run_sync(work, *args, limiter=self.writers)

    async def in_reader(self, work: Callable[..., Answer], *args: Any) -> Answer:
        """Run something that blocks for a moment in a thread."""
        return await to_thread.run_sync(work, *args)


async def get_services(request: Request) -> Services:
    """The parts of the lab."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_store(services: ServicesDep) -> Store:
    """The database."""
    return services.store


async def get_submissions(services: ServicesDep) -> Submissions:
    """What stores and enqueues experiments."""
    return services.submissions


async def get_renderings(services: ServicesDep) -> Renderings:
    """What remembers pictures."""
    return services.renderings


async def get_caller(request: Request, services: ServicesDep) -> Caller:
    """Whoever asks, known by a key or a session, and within their rate."""
    caller: Caller | None = request.scope.get("caller")  # service.http.caching has asked already
    return caller or await services.doorkeeper.identify(request)


StoreDep = Annotated[Store, Depends(get_store)]
SubmissionsDep = Annotated[Submissions, Depends(get_submissions)]
RenderingsDep = Annotated[Renderings, Depends(get_renderings)]
CallerDep = Annotated[Caller, Depends(get_caller)]


@dataclass(frozen=True, slots=True)
class Body:
    """What was sent: as plain data, and as bytes."""

    document: Any
    raw: bytes

    def named(self, name: str | None) -> "Body":
        """The same with another name in it. The bytes tell the two apart, as an Idempotency-Key has to."""
        if name is None or not isinstance(self.document, dict):
            return self
        return Body({**self.document, "name": name}, b"%b\0%b" % (name.encode("utf-8", "replace"), self.raw))


async def read_body(request: Request, caller: CallerDep, services: ServicesDep) -> Body:
    """The JSON or YAML body of a request by somebody who may send one."""
    document, raw = await read_document(request)
    services.doorkeeper.count_upload(caller, len(raw))
    return Body(document, raw)


BodyDep = Annotated[Body, Depends(read_body)]


async def authorise(request: Request, caller: CallerDep) -> None:
    """Let viewers read and submitters change."""
    check_role(caller, request)


async def authorise_viewer(request: Request, caller: CallerDep) -> None:
    """Let viewers too: what is POSTed here changes nothing."""
    check_role(caller, request, needed=Role.VIEWER)


async def _one_slot() -> AsyncIterator[None]:
    yield


# Waiting for a slot holds no thread: however many writers wait for a locked database, readers find a thread.
WriteSlot = Depends(_one_slot, scope="function", max_concurrency=8)
DrawSlot = Depends(_one_slot, scope="function", max_concurrency=4)


def _plain_number(text: Any) -> Any:
    if isinstance(text, str) and not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise ValueError("not an id")
    return text


Id = Annotated[
    int,
    Field(ge=1, le=MAX_ID),
    BeforeValidator(_plain_number),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_ID}),
    Path(description="An id, as lists give it."),
]


class StrictRoute(APIRoute):
    """A route that refuses query parameters it does not know or gets twice: none is dropped without a word.

    Whoever may not ask here at all is told so first, and what is sent is counted before it is looked at.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = sorted(set(_query_names(self.dependant)))
        # Routers add what tells who asks after this has run, so it is looked for and otherwise taken for granted.
        identify = next((call for call in _calls(self.dependant) if call in CALLERS), get_caller)
        if self.path in PUBLIC:
            identify = None

        async def checked(request: Request) -> Response:
            if request.scope["query_string"] and (error := _wrong_query(request, known)):
                if identify is not None:
                    await identify(request, await get_services(request))
                raise error
            return await handle(request)

        return checked


PUBLIC = {"/healthz", "/readyz", "/login", "/logout", "/static/{name}"}
"""Routes that answer strangers."""
CALLERS: set[Any] = {get_caller}
"""Dependencies that tell who asks, and refuse those who may not."""


def _calls(dependant: Any) -> Iterator[Any]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls(inner)


def _wrong_query(request: Request, known: list[str]) -> InvalidRequest | None:
    """What is wrong with the names of the query's parameters."""
    query: bytes = request.scope["query_string"]
    if query.count(b"&") >= MAX_PARAMETERS or len(query) > MAX_QUERY_BYTES:
        return InvalidRequest(
            f"the query has {query.count(b'&') + 1:,} parameters in {len(query):,} bytes",
            fix=f"send at most {MAX_PARAMETERS} parameters in {MAX_QUERY_BYTES:,} bytes",
        )
    given = request.query_params.multi_items()
    counts = Counter(name for name, _ in given)
    unknown = [name for name in counts if name not in known]
    entries = [_unknown(name, known, guess=number < MOST_GUESSES) for number, name in enumerate(unknown)]
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


def _unknown(name: str, known: list[str], *, guess: bool) -> dict[str, Any]:
    nearest = get_close_matches(name[:100], known, n=1, cutoff=0.5) if guess else []
    hint = f"; did you mean '{nearest[0]}'?" if nearest else f"; known are {', '.join(known)}" if known else ""
    entry = {"field": shown(name), "message": f"is not a parameter of this address{hint}"}
    return {**entry, "nearest": nearest[0]} if nearest else entry
