"""Liveness, readiness and Prometheus metrics."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from models.plain import JsonObject
from service.health.check import Readiness, require_ready
from service.health.instruments import CONTENT_TYPE, Gauges
from service.http.dependencies import AuthenticatorDep, authorise
from service.http.documents import Document
from service.http.errors import problems
from service.http.routing import StrictRoute

router = APIRouter(tags=["health"], route_class=StrictRoute)


async def get_readiness_check(request: Request) -> Readiness:
    """Return the readiness check."""
    readiness: Readiness = request.app.state.readiness
    return readiness


async def get_gauges(request: Request) -> Gauges:
    """Return the collector of Prometheus metrics."""
    gauges: Gauges = request.app.state.gauges
    return gauges


class Alive(Document):
    """The API answers."""

    status: str


class Ready(Document):
    """Broker, database and a worker answer."""

    status: str
    checks: dict[str, JsonObject] | None = None
    """Left out without a key where keys are required."""


@router.get("/healthz", responses=problems(422))
async def get_health() -> Alive:
    """Report that the API is alive. Uses neither threads nor other parts."""
    return Alive(status="ok")


@router.get("/readyz", response_model_exclude_none=True, responses=problems(422, 503))
async def get_readiness(
    request: Request,
    readiness: Annotated[Readiness, Depends(get_readiness_check)],
    authenticator: AuthenticatorDep,
) -> Ready:
    """Report whether the lab can work: database, broker, a live worker. Details need a key."""
    checks = await readiness.checks()
    in_detail = await authenticator.is_authenticated(request)
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
def get_instruments(gauges: Annotated[Gauges, Depends(get_gauges)]) -> Response:
    """Read the metrics in Prometheus' text format."""
    return Response(gauges.read(), headers={"Content-Type": CONTENT_TYPE})
