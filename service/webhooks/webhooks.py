"""Use cases of webhooks: add, change, delete, test, look at what was sent, send it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from models.errors import FieldError
from models.public_addresses import MAX_URL, read_public_url
from models.settings import Settings
from models.store import Store, webhooks
from models.store.states import DeliveryStatus
from models.webhooks import CHOICES, WebhookEvent
from service.http.access import Caller
from service.http.errors import invalid_fields, shown
from service.http.fields import read_fields
from service.http.paging import read_cursor
from service.http.preconditions import ANYTHING, Precondition
from service.webhooks.documents import (
    DeliveryDocument,
    DeliveryPage,
    NewWebhookDocument,
    WebhookDocument,
    WebhookList,
    delivery_document,
    new_webhook_document,
    webhook_document,
)

Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)]
Name = Annotated[str, StringConstraints(max_length=200)]
EXAMPLE = '{"url": "https://hooks.example/epochal", "events": ["experiment.completed"]}'


class NewWebhook(BaseModel):
    """The body that creates a webhook."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url = Field(description="http:// or https:// address that messages are POSTed to.")
    events: list[str] = Field(
        default_factory=lambda: [event.value for event in CHOICES],
        max_length=len(WebhookEvent),
        description=f"Events it is subscribed to: {', '.join(CHOICES)}; all of them if not given.",
    )
    name: Name = Field(default="", description="A name for display; any text.")


class WebhookChanges(BaseModel):
    """The body that changes a webhook; omitted fields stay."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Url | None = None
    events: list[str] | None = Field(default=None, max_length=len(WebhookEvent))
    name: Name | None = None
    enabled: bool | None = Field(default=None, description="A disabled webhook gets no messages.")


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The lab's webhooks."""

    settings: Settings
    store: Store

    def create(self, body: Any, caller: Caller) -> NewWebhookDocument:
        """Add a webhook. Raises InvalidRequest for a wrong field, Conflict where there are too many."""
        asked = read_fields(NewWebhook, body, example=EXAMPLE)
        url, events = self._check(asked.url, asked.events)
        assert url is not None
        assert events is not None
        with self.store.writing() as session:
            made = webhooks.create(session, url=url, name=asked.name, events=events, owner=caller.name)
            return new_webhook_document(made, caller)

    def list_all(self, caller: Caller) -> WebhookList:
        """Every webhook."""
        with self.store.reading() as session:
            items = [webhook_document(row, caller) for row in webhooks.list_all(session)]
        return WebhookList(items=items, total=len(items))

    def get(self, webhook_id: int, caller: Caller) -> WebhookDocument:
        """One webhook."""
        with self.store.reading() as session:
            return webhook_document(webhooks.get(session, webhook_id), caller)

    def change(self, webhook_id: int, body: Any, caller: Caller, when: Precondition = ANYTHING) -> WebhookDocument:
        """Change a webhook. Raises NotFound, InvalidRequest for a wrong field, PreconditionFailed."""
        asked = read_fields(WebhookChanges, body, example='{"enabled": false}')
        url, events = self._check(asked.url, asked.events)
        with self.store.writing() as session:
            present = webhook_document(webhooks.get(session, webhook_id), caller)
            when.check(lambda: present)
            changed = webhooks.change(
                session, webhook_id, url=url, name=asked.name, events=events, enabled=asked.enabled
            )
            return webhook_document(changed, caller)

    def delete(self, webhook_id: int, caller: Caller, when: Precondition = ANYTHING) -> None:
        """Delete a webhook with its deliveries. Raises NotFound, PreconditionFailed."""
        with self.store.writing() as session:
            present = webhook_document(webhooks.get(session, webhook_id), caller)
            when.check(lambda: present)
            webhooks.remove(session, webhook_id)

    def test(self, webhook_id: int, caller: Caller) -> DeliveryDocument:
        """Have a test message sent, within a second or so."""
        with self.store.writing() as session:
            return delivery_document(webhooks.announce_test(session, webhook_id), caller)

    def deliveries(
        self, webhook_id: int, status: DeliveryStatus | None, cursor: str | None, limit: int, caller: Caller
    ) -> DeliveryPage:
        """A webhook's messages, of one status or all, the newest first, a page at a time."""
        before = read_cursor(cursor)
        with self.store.reading() as session:
            rows, more, total = webhooks.list_deliveries(session, webhook_id, before=before, limit=limit, status=status)
            items = [delivery_document(row, caller) for row in rows]
        return DeliveryPage(items=items, next=str(items[-1].id) if more else None, total=total)

    def delivery(self, webhook_id: int, delivery_id: int, caller: Caller) -> DeliveryDocument:
        """One message."""
        with self.store.reading() as session:
            return delivery_document(webhooks.get_delivery(session, webhook_id, delivery_id), caller)

    def redeliver(self, webhook_id: int, delivery_id: int, caller: Caller) -> DeliveryDocument:
        """Have a message sent again. Raises NotFound, Conflict while it is being sent or the webhook is disabled."""
        with self.store.writing() as session:
            return delivery_document(webhooks.redeliver(session, webhook_id, delivery_id), caller)

    def _check(self, url: str | None, events: Sequence[str] | None) -> tuple[str | None, list[WebhookEvent] | None]:
        entries: list[FieldError] = []
        if url is not None:
            try:
                url = read_public_url(url, allow_private=self.settings.webhook_private)
            except ValueError as error:
                entries.append({"field": "url", "message": str(error), "value": shown(url)})
        known = {event.value: event for event in CHOICES}
        for place, event in enumerate(events or ()):
            if event not in known:
                message = f"is not an event; known are {', '.join(known)}"
                entries.append({"field": f"events.{place}", "message": message, "value": shown(event)})
        if events is not None and not events:
            entries.append({"field": "events", "message": f"is empty; name some of {', '.join(known)}"})
        if entries:
            raise invalid_fields(entries)
        return url, None if events is None else [known[event] for event in dict.fromkeys(events)]
