"""Routes of webhooks: add, list, read, change, delete, test; what was sent, and sending it again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from models.store.states import DeliveryStatus
from service.http.dependencies import BodyDep, CallerDep, WritePlace, WritesDep
from service.http.errors import problems
from service.http.pictures import ETAG, NOT_MODIFIED
from service.http.preconditions import PreconditionDep, respond_with_version, version_of
from service.http.routing import Id, StrictRoute
from service.http.schema import json_body
from service.webhooks.documents import (
    DeliveryDocument,
    DeliveryPage,
    NewWebhookDocument,
    WebhookDocument,
    WebhookList,
)
from service.webhooks.webhooks import NewWebhook, WebhookChanges, Webhooks

router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=StrictRoute)
LOCATION = {"Location": {"description": "Its address.", "schema": {"type": "string"}, "required": True}}


async def get_webhooks(request: Request) -> Webhooks:
    """Return the lab's webhooks."""
    webhooks: Webhooks = request.app.state.webhooks
    return webhooks


WebhooksDep = Annotated[Webhooks, Depends(get_webhooks)]


@router.post(
    "",
    status_code=201,
    openapi_extra=json_body(
        NewWebhook, {"url": "https://hooks.example/epochal", "events": ["experiment.completed", "study.completed"]}
    ),
    responses={
        201: {"description": "Added; the secret is shown this once.", "headers": LOCATION},
        **problems(401, 403, 409, 413, 415, 422, 503, 507),
    },
)
async def create_webhook(
    body: BodyDep, caller: CallerDep, webhooks: WebhooksDep, writes: WritesDep, response: Response
) -> NewWebhookDocument:
    """Add an address that is notified when experiments and studies end, by signed POSTs (Standard Webhooks)."""
    document = await writes.run(webhooks.create, body.document, caller)
    response.headers["Location"] = document.links["self"]
    return document


@router.get("", responses=problems(401))
def list_webhooks(webhooks: WebhooksDep, caller: CallerDep) -> WebhookList:
    """List the webhooks, without their secrets."""
    return webhooks.list_all(caller)


@router.get(
    "/{webhook_id}",
    response_model=WebhookDocument,
    responses={200: {"headers": ETAG}, **NOT_MODIFIED, **problems(401, 404)},
)
def get_webhook(webhook_id: Id, webhooks: WebhooksDep, caller: CallerDep, request: Request) -> Response:
    """Read a webhook, without its secret."""
    return respond_with_version(request, webhooks.get(webhook_id, caller))


@router.patch(
    "/{webhook_id}",
    openapi_extra=json_body(WebhookChanges, {"enabled": False}),
    responses={200: {"headers": ETAG}, **problems(401, 403, 404, 412, 413, 415, 422, 503, 507)},
)
async def change_webhook(
    webhook_id: Id,
    body: BodyDep,
    caller: CallerDep,
    webhooks: WebhooksDep,
    writes: WritesDep,
    response: Response,
    when: PreconditionDep,
) -> WebhookDocument:
    """Change a webhook's address, events or name, or disable it; what is left out stays."""
    document = await writes.run(webhooks.change, webhook_id, body.document, caller, when)
    response.headers["ETag"] = version_of(document)
    return document


@router.delete("/{webhook_id}", status_code=204, responses=problems(401, 403, 404, 412))
def delete_webhook(
    webhook_id: Id, webhooks: WebhooksDep, caller: CallerDep, when: PreconditionDep, _: Annotated[None, WritePlace]
) -> None:
    """Delete a webhook, with what waits to be sent to it."""
    webhooks.delete(webhook_id, caller, when)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    responses={
        202: {"description": "It is sent within a second or so.", "headers": LOCATION},
        **problems(401, 403, 404, 409),
    },
)
def send_test_message(
    webhook_id: Id, webhooks: WebhooksDep, caller: CallerDep, response: Response, _: Annotated[None, WritePlace]
) -> DeliveryDocument:
    """Send a test message; the answer's `Location` tells what became of it."""
    document = webhooks.test(webhook_id, caller)
    response.headers["Location"] = document.links["self"]
    return document


@router.get("/{webhook_id}/deliveries", responses=problems(401, 404, 422))
def list_deliveries(
    webhook_id: Id,
    webhooks: WebhooksDep,
    caller: CallerDep,
    status: Annotated[DeliveryStatus | None, Query(description="Only messages of this status.")] = None,
    cursor: Annotated[str | None, Query(max_length=2000, description="`next` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Messages on a page.")] = 50,
) -> DeliveryPage:
    """List what was sent to a webhook and what waits, the newest first, a page at a time."""
    return webhooks.deliveries(webhook_id, status, cursor, limit, caller)


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=problems(401, 404))
def get_delivery(webhook_id: Id, delivery_id: Id, webhooks: WebhooksDep, caller: CallerDep) -> DeliveryDocument:
    """Read one message: its status, attempts, and the last answer."""
    return webhooks.delivery(webhook_id, delivery_id, caller)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202, responses=problems(401, 403, 404, 409)
)
def redeliver(
    webhook_id: Id, delivery_id: Id, webhooks: WebhooksDep, caller: CallerDep, _: Annotated[None, WritePlace]
) -> DeliveryDocument:
    """Send a message again, with the same id, however often it was sent before."""
    return webhooks.redeliver(webhook_id, delivery_id, caller)
