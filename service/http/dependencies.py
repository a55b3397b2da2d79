"""FastAPI dependencies shared by all routes: settings, the database, the caller, the body, queue slots.

The application's parts are attributes of `app.state`, set while it starts (service.app). Each getter here, and in the
routes of the noun that a part belongs to, passes one of them to a route.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from models.settings import Settings
from models.store import Store
from models.store.states import Role
from service.http.access import Authenticator, Caller, check_role
from service.http.body import read_document
from service.http.queues import BoundedQueue
from service.http.rendered import Renderings


async def get_settings(request: Request) -> Settings:
    """Return the lab's settings."""
    settings: Settings = request.app.state.settings
    return settings


async def get_store(request: Request) -> Store:
    """Return the database."""
    store: Store = request.app.state.store
    return store


async def get_writes(request: Request) -> BoundedQueue:
    """Return the queue of requests that write to the database."""
    writes: BoundedQueue = request.app.state.writes
    return writes


async def get_renderings(request: Request) -> Renderings:
    """Return the cache of rendered pictures and tables."""
    renderings: Renderings = request.app.state.renderings
    return renderings


async def get_authenticator(request: Request) -> Authenticator:
    """Return the authenticator, which also applies quotas."""
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator


SettingsDep = Annotated[Settings, Depends(get_settings)]
StoreDep = Annotated[Store, Depends(get_store)]
WritesDep = Annotated[BoundedQueue, Depends(get_writes)]
RenderingsDep = Annotated[Renderings, Depends(get_renderings)]
AuthenticatorDep = Annotated[Authenticator, Depends(get_authenticator)]


async def get_caller(request: Request) -> Caller:
    """Authenticate the request, once, and apply the caller's rate limit. Raises Unauthorized, TooManyRequests."""
    caller: Caller | None = request.scope.get("caller")  # by service.http.caching, or an earlier call
    if caller is None:
        caller = request.scope["caller"] = await request.app.state.authenticator.identify(request)
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


async def authorise(request: Request, caller: CallerDep) -> None:
    """Check the caller's role: safe methods need a viewer, others a submitter. Raises Forbidden."""
    check_role(caller, request)


async def authorise_viewer(request: Request, caller: CallerDep) -> None:
    """Check the caller's role on routes whose POST changes nothing: a viewer suffices. Raises Forbidden."""
    check_role(caller, request, needed=Role.VIEWER)


@dataclass(frozen=True, slots=True)
class Body:
    """A request body, as plain data and as bytes."""

    document: Any
    raw: bytes

    def named(self, name: str | None) -> "Body":
        """Return the body with another name. Its bytes differ too, so that an Idempotency-Key tells the two apart."""
        if name is None or not isinstance(self.document, dict):
            return self
        return Body({**self.document, "name": name}, b"%b\0%b" % (name.encode("utf-8", "replace"), self.raw))


async def read_body(request: Request, caller: CallerDep, authenticator: AuthenticatorDep) -> Body:
    """Read the JSON or YAML body of a request and count it against the caller's quota."""
    document, raw = await read_document(request)
    authenticator.count_upload(caller, len(raw))
    return Body(document, raw)


BodyDep = Annotated[Body, Depends(read_body)]


async def _write_place(request: Request) -> AsyncIterator[None]:
    async with request.app.state.writes.place():
        yield


async def _draw_place(request: Request) -> AsyncIterator[None]:
    async with request.app.state.drawings.place():
        yield


# A sync route with one of these waits for its slot before it takes a thread: however many requests wait for a locked
# database, threads are left for routes that read.
WritePlace = Depends(_write_place, scope="function")
DrawPlace = Depends(_draw_place, scope="function")
