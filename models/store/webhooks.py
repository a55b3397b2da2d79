"""Webhooks and what is to be sent to them.

A delivery is written in the transaction that ends an experiment or a study, so that none is lost. Senders claim those
that are due: a claim raises the number of attempts, which the result has to carry, and holds for CLAIM_SECONDS, so
that what a sender died with is sent again. So a message may arrive twice, with the same id.

Times here are compared with the clock, since pauses of hours must outlast restarts. A time beyond the longest pause was
written by a clock that was wrong and counts as due.
"""

import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from models.errors import Conflict, NotFound
from models.plain import JsonObject, finite
from models.store.columns import now
from models.store.states import DeliveryStatus
from models.store.tables import Delivery, Experiment, Study, SummaryRow, Webhook
from models.webhooks import JITTER, RETRY_SECONDS, WebhookEvent, new_secret, pause_after, write_body

MAX_WEBHOOKS = 100
"""The most webhooks of a lab: every end of an experiment writes a row for each."""
KEPT = 200
"""Deliveries of a webhook that are kept after they have ended."""
CLAIM_SECONDS = 30
LONGEST = timedelta(seconds=RETRY_SECONDS[-1] * (1 + JITTER) + CLAIM_SECONDS)
WAITING = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)
DISABLED = "the webhook was disabled before it could be sent"


@dataclass(frozen=True)
class Claimed:
    """A delivery that a sender has claimed."""

    delivery_id: int
    webhook_id: int
    attempt: int
    message_id: str
    body: str
    url: str
    secret: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of one attempt."""

    delivered: bool
    status: int | None
    """The HTTP status; None without an answer."""
    answer: str
    """The beginning of the answer, or why there was none."""
    gone: bool = False
    """Whether the receiver wants nothing more (410)."""
    retry_after_seconds: float = 0.0


# webhooks


def create(session: Session, *, url: str, name: str, events: Sequence[WebhookEvent], owner: str | None) -> Webhook:
    """Add a webhook with a secret of its own. Raises Conflict where there are too many."""
    count = session.scalar(select(func.count()).select_from(Webhook)) or 0
    if count >= MAX_WEBHOOKS:
        raise Conflict(f"the lab has {count} webhooks, as many as it may have", fix="delete one that is not needed")
    webhook = Webhook(url=url, name=name, events=[event.value for event in events], secret=new_secret(), owner=owner)
    session.add(webhook)
    session.flush()
    return webhook


def get(session: Session, webhook_id: int) -> Webhook:
    """One webhook, or NotFound."""
    found = session.get(Webhook, webhook_id, populate_existing=True) if 0 < webhook_id < 2**63 else None
    if found is None:
        raise NotFound(f"there is no webhook {webhook_id}", fix="GET /api/v1/webhooks lists them")
    return found


def list_all(session: Session) -> Sequence[Webhook]:
    """Every webhook, by id."""
    return session.scalars(select(Webhook).order_by(Webhook.id)).all()


def change(
    session: Session,
    webhook_id: int,
    *,
    url: str | None = None,
    name: str | None = None,
    events: Sequence[WebhookEvent] | None = None,
    enabled: bool | None = None,
) -> Webhook:
    """Change what is not None. A webhook that is disabled gives up what waits to be sent."""
    webhook = get(session, webhook_id)
    webhook.url = webhook.url if url is None else url
    webhook.name = webhook.name if name is None else name
    webhook.events = webhook.events if events is None else [event.value for event in events]
    if enabled:
        webhook.enabled, webhook.reason = True, None
    elif enabled is False:
        _disable(session, webhook, "disabled by request")
    return webhook


def remove(session: Session, webhook_id: int) -> None:
    """Delete a webhook with its deliveries."""
    session.delete(get(session, webhook_id))


def _disable(session: Session, webhook: Webhook, reason: str) -> None:
    if webhook.enabled:
        webhook.enabled, webhook.reason = False, reason
    waiting = update(Delivery).where(Delivery.webhook_id == webhook.id, Delivery.status.in_(WAITING))
    session.execute(waiting.values(status=DeliveryStatus.FAILED, next_at=None, answer=DISABLED))


# what is to be sent


def announce_experiment(session: Session, experiment: Experiment) -> None:
    """Write a delivery for each webhook that wants to know of an experiment's end; in the transaction that ends it."""
    event = WebhookEvent(f"experiment.{experiment.status.value}")
    if webhooks := _subscribed(session, event):
        best = session.get(SummaryRow, (experiment.id, "val_accuracy"))
        found = None if best is None or best.best is None else {"value": best.best, "epoch": best.best_epoch}
        test: dict[str, Any] = dict(experiment.test or {})
        data = {
            "id": experiment.id,
            "path": f"/api/v1/experiments/{experiment.id}",
            "name": experiment.name,
            "tags": experiment.tags,
            "model": experiment.model,
            "dataset": experiment.dataset,
            "status": experiment.status.value,
            "reason": experiment.reason,
            "best_val_accuracy": found,
            "test_accuracy": test.get("accuracy"),
        }
        _add_all(session, webhooks, event, data)


def announce_study(session: Session, study: Study) -> None:
    """The same for a study."""
    event = WebhookEvent(f"study.{study.state.value}")
    if webhooks := _subscribed(session, event):
        data = {
            "id": study.id,
            "path": f"/api/v1/studies/{study.id}",
            "title": study.title,
            "status": study.state.value,
            "reason": study.reason,
            "spent_seconds": round(study.spent_seconds, 1),
        }
        _add_all(session, webhooks, event, data)


def announce_test(session: Session, webhook_id: int) -> Delivery:
    """Write a delivery that tests one webhook. Raises Conflict if it is disabled."""
    webhook = get(session, webhook_id)
    _check_enabled(webhook)
    data = {"id": webhook.id, "path": f"/api/v1/webhooks/{webhook.id}", "name": webhook.name}
    return _add_all(session, [webhook], WebhookEvent.TEST, data)[0]


def _subscribed(session: Session, event: WebhookEvent) -> list[Webhook]:
    enabled = session.scalars(select(Webhook).where(Webhook.enabled.is_(True)).order_by(Webhook.id))
    return [webhook for webhook in enabled if event.value in webhook.events]


def _add_all(
    session: Session, webhooks: Sequence[Webhook], event: WebhookEvent, data: Mapping[str, Any]
) -> list[Delivery]:
    moment = now()
    body = write_body(event, moment, finite(data))
    made = [
        Delivery(
            webhook_id=webhook.id,
            event=event,
            message_id=f"msg_{secrets.token_hex(16)}",
            status=DeliveryStatus.PENDING,
            created_at=moment,
            next_at=moment,
            body=body,
        )
        for webhook in webhooks
    ]
    session.add_all(made)
    session.flush()
    return made


def _check_enabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise Conflict(
            f"webhook {webhook.id} is disabled: {webhook.reason}",
            fix=f'PATCH /api/v1/webhooks/{webhook.id} with {{"enabled": true}} first',
        )


# sending


def is_due(moment: datetime) -> ColumnElement[bool]:
    """Whether a delivery is to be sent at this time: its time has come, or its sender has fallen silent."""
    return and_(Delivery.status.in_(WAITING), or_(Delivery.next_at <= moment, Delivery.next_at > moment + LONGEST))


def any_due(session: Session, moment: datetime) -> bool:
    """Whether anything is to be sent at this time."""
    return session.scalar(select(Delivery.id).where(is_due(moment)).limit(1)) is not None


def claim_due(session: Session, moment: datetime, *, busy: Mapping[int, int], each: int, total: int) -> list[Claimed]:
    """Claim deliveries that are due, at most `total`, and for each webhook `each` less those that are `busy`."""
    due = select(Delivery.webhook_id).where(is_due(moment)).group_by(Delivery.webhook_id)
    claimed: list[Claimed] = []
    taken = Counter(busy)
    for webhook_id in session.scalars(due.order_by(func.min(Delivery.next_at))).all():
        room = min(each - taken[webhook_id], total - len(claimed))
        if room <= 0:
            continue
        webhook = get(session, webhook_id)
        query = select(Delivery).where(Delivery.webhook_id == webhook_id, is_due(moment))
        for delivery in session.scalars(query.order_by(Delivery.next_at, Delivery.id).limit(room)):
            delivery.status = DeliveryStatus.SENDING
            delivery.attempts += 1
            delivery.next_at = moment + timedelta(seconds=CLAIM_SECONDS)
            claimed.append(
                Claimed(
                    delivery.id, webhook_id, delivery.attempts, delivery.message_id, delivery.body, webhook.url,
                    webhook.secret,
                )
            )  # fmt: skip
    return claimed


def settle(session: Session, claimed: Claimed, outcome: Outcome, moment: datetime, spread: float) -> None:
    """Store the outcome of an attempt, and when the next one is due; nothing if another sender has taken it over."""
    delivery = session.get(Delivery, claimed.delivery_id, populate_existing=True)
    if delivery is None or delivery.attempts != claimed.attempt or delivery.status is not DeliveryStatus.SENDING:
        return
    delivery.last_at, delivery.last_status, delivery.answer = moment, outcome.status, outcome.answer
    delivery.next_at = None
    if outcome.delivered:
        delivery.status = DeliveryStatus.DELIVERED
    else:
        delivery.failures += 1
        pause = None if outcome.gone else pause_after(delivery.failures, spread, outcome.retry_after_seconds)
        delivery.status = DeliveryStatus.FAILED if pause is None else DeliveryStatus.PENDING
        if pause is not None:
            delivery.next_at = moment + timedelta(seconds=pause)
        if outcome.gone:
            _disable(session, get(session, delivery.webhook_id), "the receiver answered 410 Gone")
    session.flush()
    _prune(session, delivery.webhook_id)


def _prune(session: Session, webhook_id: int) -> None:
    ended = select(Delivery.id).where(Delivery.webhook_id == webhook_id, Delivery.status.not_in(WAITING))
    oldest = session.scalar(ended.order_by(Delivery.id.desc()).offset(KEPT - 1).limit(1))
    if oldest is not None:
        session.execute(delete(Delivery).where(Delivery.id.in_(ended.where(Delivery.id < oldest))))


# deliveries


def get_delivery(session: Session, webhook_id: int, delivery_id: int) -> Delivery:
    """One delivery of a webhook, or NotFound."""
    get(session, webhook_id)
    found = session.get(Delivery, delivery_id, populate_existing=True) if 0 < delivery_id < 2**63 else None
    if found is None or found.webhook_id != webhook_id:
        raise NotFound(
            f"webhook {webhook_id} has no delivery {delivery_id}",
            fix=f"GET /api/v1/webhooks/{webhook_id}/deliveries lists them",
        )
    return found


def list_deliveries(
    session: Session, webhook_id: int, *, before: int | None, limit: int, status: DeliveryStatus | None = None
) -> tuple[list[Delivery], bool, int]:
    """A webhook's deliveries, the newest first, from below an id on; whether there are more; and how many in all."""
    get(session, webhook_id)
    wanted = [Delivery.webhook_id == webhook_id, *([] if status is None else [Delivery.status == status])]
    query = select(Delivery).where(*wanted).order_by(Delivery.id.desc()).limit(limit + 1)
    found = list(session.scalars(query if before is None else query.where(Delivery.id < before)))
    total = session.scalar(select(func.count()).select_from(Delivery).where(*wanted)) or 0
    return found[:limit], len(found) > limit, total


def redeliver(session: Session, webhook_id: int, delivery_id: int) -> Delivery:
    """Send a delivery again now, with its message id, and as often as a new one. Raises Conflict while it is sent."""
    delivery = get_delivery(session, webhook_id, delivery_id)
    _check_enabled(get(session, webhook_id))
    if delivery.status is DeliveryStatus.SENDING:
        raise Conflict(f"delivery {delivery_id} is being sent", fix="look at it again in a few seconds")
    delivery.status, delivery.failures, delivery.next_at = DeliveryStatus.PENDING, 0, now()
    return delivery


def payload_of(delivery: Delivery) -> JsonObject:
    """The message's body as data."""
    try:
        found = json.loads(delivery.body)
    except ValueError:  # from an untrusted backup
        return {}
    return found if isinstance(found, dict) else {}
