"""The JSON documents of webhooks and their deliveries."""

from datetime import datetime
from urllib.parse import urlsplit

from pydantic import Field

from models.plain import JsonObject
from models.store.states import DeliveryStatus, Role
from models.store.tables import Delivery, Webhook
from models.store.webhooks import payload_of
from models.webhooks import CHOICES, WebhookEvent
from service.http.access import Caller
from service.http.documents import API, Document
from service.http.prefix import with_prefix


class WebhookDocument(Document):
    """An address that is notified when experiments and studies end."""

    id: int
    name: str
    url: str = Field(description="Where messages are sent; for a viewer's key without path and query.")
    events: list[WebhookEvent]
    enabled: bool
    reason: str | None = Field(description="Why it is disabled.")
    created_by: str | None = Field(description="Name of the key that made it.")
    created_at: datetime
    links: dict[str, str]


class NewWebhookDocument(WebhookDocument):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field(description="Messages are signed with it (Standard Webhooks). It is not shown again.")


class WebhookList(Document):
    """All webhooks."""

    items: list[WebhookDocument]
    total: int


class DeliveryDocument(Document):
    """One message to a webhook."""

    id: int
    event: WebhookEvent
    message_id: str = Field(description="The header webhook-id, the same in every attempt.")
    status: DeliveryStatus
    attempts: int = Field(description="How often it was sent.")
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None = Field(description="When it is sent again; null once it has ended.")
    last_status: int | None = Field(description="The HTTP status of the last answer; null without one.")
    last_answer: str | None = Field(description="The beginning of the last answer, or why there was none.")
    payload: JsonObject = Field(description="The body.")
    links: dict[str, str]


class DeliveryPage(Document):
    """One page of a webhook's messages."""

    items: list[DeliveryDocument]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int


def webhook_document(webhook: Webhook, caller: Caller) -> WebhookDocument:
    """A webhook, as this caller may see it."""
    return WebhookDocument(**_members(webhook, caller))


def new_webhook_document(webhook: Webhook, caller: Caller) -> NewWebhookDocument:
    """A webhook that was just made."""
    return NewWebhookDocument(**_members(webhook, caller), secret=webhook.secret)


def _members(webhook: Webhook, caller: Caller) -> JsonObject:
    root = with_prefix(f"{API}/webhooks/{webhook.id}")
    return {
        "id": webhook.id,
        "name": webhook.name,
        "url": webhook.url if caller.role is Role.SUBMITTER else _without_path(webhook.url),
        "events": [event for event in CHOICES if event.value in webhook.events],
        "enabled": webhook.enabled,
        "reason": webhook.reason,
        "created_by": webhook.owner,
        "created_at": webhook.created_at,
        "links": {"self": root, "deliveries": f"{root}/deliveries", "test": f"{root}/test"},
    }


def _without_path(url: str) -> str:
    """An address without path and query, in which some services have a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/" + ("..." if parts.path != "/" or parts.query else "")


def delivery_document(delivery: Delivery, caller: Caller) -> DeliveryDocument:
    """A message; what the receiver answered is for those who may send it again."""
    root = with_prefix(f"{API}/webhooks/{delivery.webhook_id}/deliveries/{delivery.id}")
    return DeliveryDocument(
        id=delivery.id,
        event=delivery.event,
        message_id=delivery.message_id,
        status=delivery.status,
        attempts=delivery.attempts,
        created_at=delivery.created_at,
        last_attempt_at=delivery.last_at,
        next_attempt_at=delivery.next_at,
        last_status=delivery.last_status,
        last_answer=delivery.answer if caller.role is Role.SUBMITTER else None,
        payload=payload_of(delivery),
        links={"self": root, "redeliver": f"{root}/redeliver"},
    )
