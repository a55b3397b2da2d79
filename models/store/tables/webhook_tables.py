"""Tables of webhooks and of the messages to them."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.store.columns import JsonColumn, now
from models.store.states import DeliveryStatus
from models.store.tables.base import Base, BigInt
from models.webhooks import WebhookEvent


class Webhook(Base):
    """An address that is notified when experiments and studies end."""

    __tablename__ = "webhooks"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    url: Mapped[str] = mapped_column(String(2000))
    enabled: Mapped[bool] = mapped_column(default=True)
    owner: Mapped[str | None] = mapped_column(String(100))
    """Name of the API key that created it; None where none is required."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it is disabled."""
    secret: Mapped[str] = mapped_column(String(100))
    """What messages are signed with. It has to be known for that, so it is stored as it is, and shown once."""
    events: Mapped[list[str]] = mapped_column(JsonColumn)


class Delivery(Base):
    """One message to one webhook."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "status", "next_at"),
        Index(None, "webhook_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    webhook_id: Mapped[BigInt] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[WebhookEvent]
    message_id: Mapped[str] = mapped_column(String(100))
    """The same in every attempt, so that a receiver knows what it has had."""
    status: Mapped[DeliveryStatus]
    attempts: Mapped[int] = mapped_column(default=0)
    """The fencing number: one more with each claim."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that failed since it was made or sent again by request; decides on the next pause."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    next_at: Mapped[datetime | None]
    """When it is due, or while it is sent, when its sender counts as silent; None once it has ended."""
    last_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    answer: Mapped[str | None] = mapped_column(Text)
    """The beginning of the last answer, or why there was none."""
    body: Mapped[str] = mapped_column(Text)
