"""What routes of every noun ask for by type: settings, the database, the caller, the body, a place to work in.

The application's parts are attributes of `app.state`, set while it starts (service.app). Each getter here, and in the
routes of the noun that a part belongs to, hands one of them to a route.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from models.settings import Settings
from models.store import Store
from models.store.states import Role
from service.http.access import Caller, Doorkeeper, check_role
from service.http.body import read_document
from service.http.queues import BoundedQueue
from service.http.rendered import Renderings


async def get_settings(request: Request) -> Settings:
    """The lab's settings."""
    settings: Settings = request.app.state.settings
    return settings


async def get_store(request: Request) -> Store:
    """The database."""
    store: Store = request.app.state.store
    return store


async def get_writes(request: Request) -> BoundedQueue:
    """The queue of requests that write to the database."""
    writes: BoundedQueue = request.app.state.writes
    return writes


async def get_renderings(request: Request) -> Renderings:
    """The memory of what was drawn."""
    renderings: Renderings = request.app.state.renderings
    return renderings


async def get_doorkeeper(request: Request) -> Doorkeeper:
    """The check of keys, sessions and quotas."""
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    return doorkeeper


SettingsDep = Annotated[Settings, Depends(get_settings)]
StoreDep = Annotated[Store, Depends(get_store)]
WritesDep = Annotated[BoundedQueue, Depends(get_writes)]
RenderingsDep = Annotated[Renderings, Depends(get_renderings)]
DoorkeeperDep = Annotated[Doorkeeper, Depends(get_doorkeeper)]


async def get_caller(request: Request) -> Caller:
    """The sender of the request, known by a key or a session, and within its rate."""
    caller: Caller | None = request.scope.get("caller")  # service.http.caching has asked already
    return caller or await (await get_doorkeeper(request)).identify(request)


CallerDep = Annotated[Caller, Depends(get_caller)]


async def authorise(request: Request, caller: CallerDep) -> None:
    """Let viewers read and submitters change."""
    check_role(caller, request)


async def authorise_viewer(request: Request, caller: CallerDep) -> None:
    """Let viewers too: what is POSTed here changes nothing."""
    check_role(caller, request, needed=Role.VIEWER)


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


async def read_body(request: Request, caller: CallerDep, doorkeeper: DoorkeeperDep) -> Body:
    """The JSON or YAML body of a request, counted against its sender's quota."""
    document, raw = await read_document(request)
    doorkeeper.count_upload(caller, len(raw))
    return Body(document, raw)


BodyDep = Annotated[Body, Depends(read_body)]


async def _write_place(request: Request) -> AsyncIterator[None]:
    async with request.app.state.writes.place():
        yield


async def _draw_place(request: Request) -> AsyncIterator[None]:
    async with request.app.state.drawings.place():
        yield


# A sync route with one of these waits for its place before it takes a thread: however many wait for a locked
# database, routes that read find a thread.
WritePlace = Depends(_write_place, scope="function")
DrawPlace = Depends(_draw_place, scope="function")
