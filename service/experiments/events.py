"""Route of an experiment's live events (server-sent events)."""

import re
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from models.errors import InvalidRequest
from models.store import Store, experiments
from service.experiments.live import LiveEvents, Subscriber
from service.http.dependencies import CallerDep, StoreDep
from service.http.errors import problems
from service.http.routing import Id, StrictRoute

router = APIRouter(prefix="/experiments", tags=["experiments"], route_class=StrictRoute)
MAX_EVENT_ID = 2**63 - 1


async def get_live(request: Request) -> LiveEvents:
    """Return the publisher of live events."""
    live: LiveEvents = request.app.state.live
    return live


LiveDep = Annotated[LiveEvents, Depends(get_live)]


@router.get(
    "/{experiment_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": (
                "Events `state`, `epoch`, `verdict` and `notice`, each with an id; `progress` without one while it "
                "runs; a last `end`, after which the stream closes."
            ),
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(401, 404, 422, 429, 503),
    },
)
async def stream_events(
    experiment_id: Id,
    store: StoreDep,
    live: LiveDep,
    caller: CallerDep,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=40, description="Replay what came after this event.")
    ] = None,
    after: Annotated[
        int, Query(ge=0, le=MAX_EVENT_ID, description="The same, for clients that cannot set headers.")
    ] = 0,
) -> StreamingResponse:
    """Follow an experiment: every state change and epoch, from the first one or from where the client left off."""
    start = after if last_event_id is None else _read_id(last_event_id)
    await to_thread.run_sync(_check_exists, store, experiment_id)
    return EventStream(live, live.subscribe(experiment_id, caller), start)


class EventStream(StreamingResponse):
    """Response that streams a subscriber's events, and unsubscribes when it ends, however it ends."""

    def __init__(self, live: LiveEvents, subscriber: Subscriber, last_id: int) -> None:
        super().__init__(
            live.stream(subscriber, last_id),
            media_type="text/event-stream",
            # An idle connection left open after the last event would look like a stream that goes on.
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"},
        )
        self.live = live
        self.subscriber = subscriber

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, then unsubscribe."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.live.unsubscribe(self.subscriber)


def _check_exists(store: Store, experiment_id: int) -> None:
    with store.reading() as session:
        experiments.require(session, experiment_id)


def _read_id(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text.strip()) or int(text) > MAX_EVENT_ID:
        raise InvalidRequest(
            f"Last-Event-ID is '{text}', and must be the number of an event",
            errors=[{"field": "Last-Event-ID", "message": "must be the id of an event"}],
        )
    return int(text)
