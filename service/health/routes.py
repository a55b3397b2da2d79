"""Whether the API lives, whether the lab can work, and what it measures of itself."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from service.dependencies import ServicesDep, StrictRoute, authorise
from service.experiments.documents import Document
from service.health.check import measure, require_ready
from service.health.instruments import CONTENT_TYPE
from service.http.errors import problems

router = APIRouter(tags=["health"], route_class=StrictRoute)


class Alive(Document):
    """The API answers."""

    status: str


class Ready(Document):
    """Broker, database and a worker answer."""

    status: str
    checks: dict[str, Any] | None = None
    """Left out for those who show no key where keys are needed."""


@router.get("/healthz", responses=problems(422))
async def get_health() -> Alive:
    """Say that the API is there. Asks nothing of anything else, and of no thread."""
    return Alive(status="ok")


@router.get("/readyz", response_model_exclude_none=True, responses=problems(422, 503))
async def get_readiness(request: Request, services: ServicesDep) -> Ready:
    """Say whether the lab can work: the broker, the database, a live worker. Details are for those with a key."""
    checks = await services.readiness.checks()
    in_detail = await services.doorkeeper.is_known(request)
    require_ready(checks, in_detail=in_detail)
    return Ready(status="ready", checks=checks if in_detail else None)


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(authorise)],
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(401, 422, 503),
    },
)
def get_instruments(services: ServicesDep) -> Response:
    """Read counters and gauges for Prometheus."""
    text = measure(services.instruments, services.store, services.celery, services.live.num_streams)
    return Response(text, headers={"Content-Type": CONTENT_TYPE})
