"""What webhooks are to be told is written where an experiment or study ends, and claimed by one sender at a time."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from models.errors import Conflict
from models.settings import Settings
from models.spec.rows import parse_study
from models.store import Status, Store, experiments, history, runs, studies, study_progress, webhooks
from models.store.columns import now
from models.store.states import DeliveryStatus
from models.store.studies import NewRow
from models.store.tables import Delivery, Webhook
from models.store.webhooks import Claimed, Outcome
from models.webhooks import CHOICES, RETRY_SECONDS, WebhookEvent
from tests.models.store.helpers import add_experiment, claim, in_processes, make_metrics, start

OK = Outcome(delivered=True, status=200, answer="")
ERROR = Outcome(delivered=False, status=500, answer="oops")


def add(store: Store, *events: WebhookEvent) -> int:
    with store.writing() as session:
        made = webhooks.create(session, url="https://hooks.example/", name="", events=events or CHOICES, owner=None)
        return made.id


def sent(store: Store, webhook_id: int) -> list[Delivery]:
    """Its deliveries, the oldest first."""
    with store.reading() as session:
        return webhooks.list_deliveries(session, webhook_id, before=None, limit=1000)[0][::-1]


def take(store: Store, moment: datetime | None = None, each: int = 100) -> list[Claimed]:
    with store.writing() as session:
        return webhooks.claim_due(session, moment or now(), busy={}, each=each, total=100)


def settle(store: Store, claimed: Claimed, outcome: Outcome, moment: datetime | None = None) -> None:
    with store.writing() as session:
        webhooks.settle(session, claimed, outcome, moment or now(), 0.0)


def end(status: Status) -> Callable[[Store], int]:
    def run(store: Store) -> int:
        begun = start(store, name="first", tags=["a"])
        with store.writing() as session:
            history.append_epoch(session, begun, make_metrics(1, val_accuracy=0.75))
        with store.writing() as session:
            runs.settle(session, begun, status, reason=None if status is Status.COMPLETED else "it was so")
        return begun.experiment_id

    return run


def cancel_queued(store: Store) -> int:
    number = add_experiment(store)
    with store.writing() as session:
        experiments.request_cancel(session, number)
    return number


def lose_its_worker(store: Store) -> int:
    begun = claim(store, add_experiment(store), max_attempts=1)
    with store.writing() as session:
        runs.hand_back(session, begun, "its worker fell silent", counts=True)
    return begun.experiment_id


@pytest.mark.parametrize(
    ("how", "event"),
    [
        (end(Status.COMPLETED), WebhookEvent.EXPERIMENT_COMPLETED),
        (end(Status.FAILED), WebhookEvent.EXPERIMENT_FAILED),
        (end(Status.DIVERGED), WebhookEvent.EXPERIMENT_DIVERGED),
        (end(Status.CANCELLED), WebhookEvent.EXPERIMENT_CANCELLED),
        (cancel_queued, WebhookEvent.EXPERIMENT_CANCELLED),
        (lose_its_worker, WebhookEvent.EXPERIMENT_FAILED),
    ],
)
def test_every_end_of_an_experiment_is_told_once(
    store: Store, how: Callable[[Store], int], event: WebhookEvent
) -> None:
    one, other = add(store), add(store, *(choice for choice in CHOICES if choice is not event))
    number = how(store)
    found = sent(store, one)
    assert [(row.event, row.status, row.attempts) for row in found] == [(event, DeliveryStatus.PENDING, 0)]
    assert sent(store, other) == []
    payload = webhooks.payload_of(found[0])
    assert payload["type"] == event.value
    assert datetime.fromisoformat(payload["timestamp"]) <= now()
    assert payload["data"]["id"] == number
    assert payload["data"]["path"] == f"/api/v1/experiments/{number}"
    assert payload["data"]["status"] == event.value.split(".")[1]


def test_a_message_says_how_the_experiment_came_out(store: Store) -> None:
    one = add(store)
    end(Status.COMPLETED)(store)
    data = webhooks.payload_of(sent(store, one)[0])["data"]
    assert (data["name"], data["tags"], data["model"], data["dataset"]) == ("first", ["a"], "baseline", "cifar10")
    assert data["best_val_accuracy"] == {"value": 0.75, "epoch": 1}
    assert data["reason"] is None


def test_nothing_is_told_of_an_end_that_was_rolled_back_nor_while_it_goes_on(store: Store) -> None:
    one = add(store)
    begun = start(store)
    with store.writing() as session:
        runs.settle(session, begun, Status.COMPLETED)
        session.rollback()
    with store.writing() as session:
        runs.hand_back(session, begun, "shutdown", counts=False)
    assert sent(store, one) == []


def study_of(store: Store) -> int:
    parsed = parse_study({"title": "Widths", "base": "baseline", "variants": [{"key": "wide", "overrides": {}}]})
    images: Any = {"title": "CIFAR-10", "train": 40_000, "val": 10_000, "test": 10_000, "classes": 10}
    with store.writing() as session:
        return studies.create(session, parsed, [NewRow(row, [], [], images) for row in parsed.rows]).id


def test_the_end_of_a_study_is_told(store: Store, settings: Settings) -> None:
    one = add(store, WebhookEvent.STUDY_COMPLETED, WebhookEvent.STUDY_CANCELLED)

    def advance(study_id: int) -> None:
        with store.writing() as session:
            study_progress.advance(session, study_id, settings.experiments_dir)

    first, second = study_of(store), study_of(store)
    advance(first)
    with store.reading() as session:
        waiting = experiments.queued_ids(session)
    for number in waiting:
        begun = claim(store, number)
        with store.writing() as session:
            runs.settle(session, begun, Status.COMPLETED)
    advance(first)
    advance(first)
    with store.writing() as session:
        studies.request_cancel(session, second)
        studies.request_cancel(session, second)
    told = [webhooks.payload_of(row) for row in sent(store, one)]
    assert [(one["type"], one["data"]["id"], one["data"]["title"]) for one in told] == [
        ("study.completed", first, "Widths"),
        ("study.cancelled", second, "Widths"),
    ]


def test_a_failed_attempt_is_made_again_after_the_pauses_of_the_standard_and_then_given_up(store: Store) -> None:
    one, moment = add(store), now() + timedelta(seconds=1)
    cancel_queued(store)
    for pause in (*RETRY_SECONDS, None):
        (claimed,) = take(store, moment)
        settle(store, claimed, ERROR, moment)
        (row,) = sent(store, one)
        assert (row.last_status, row.answer, row.last_at) == (500, "oops", moment)
        if pause is None:
            assert (row.status, row.next_at, row.attempts) == (DeliveryStatus.FAILED, None, 10)
        else:
            assert row.next_at == moment + timedelta(seconds=pause)
            assert take(store, moment + timedelta(seconds=pause - 1)) == []
            moment += timedelta(seconds=pause)
    assert take(store, moment + timedelta(days=30)) == []


def test_a_receiver_that_asks_for_a_longer_pause_gets_it_up_to_a_day(store: Store) -> None:
    one, moment = add(store), now() + timedelta(seconds=1)
    cancel_queued(store)
    for asked, pause in ((60, 60), (1, 300), (10**8, 86_400)):
        (claimed,) = take(store, moment)
        settle(store, claimed, Outcome(False, 429, "", retry_after_seconds=asked), moment)
        (row,) = sent(store, one)
        assert row.next_at == moment + timedelta(seconds=pause)
        moment = row.next_at


def test_senders_at_once_claim_each_message_once(store: Store, settings: Settings) -> None:
    add(store)
    for _ in range(6):
        cancel_queued(store)

    def work(own: Store, _: int) -> list[int]:
        return [one.delivery_id for _ in range(3) for one in take(own, each=2)]

    found = in_processes(2, work, settings)
    assert sorted(number for numbers in found for number in numbers) == list(range(1, 7))


def test_what_a_sender_died_with_is_sent_again_and_its_late_answer_counts_no_more(store: Store) -> None:
    one = add(store)
    cancel_queued(store)
    moment = now()
    (lost,) = take(store, moment)
    assert take(store, moment) == []
    (again,) = take(store, moment + timedelta(minutes=1))
    assert (again.message_id, again.body, again.attempt) == (lost.message_id, lost.body, 2)
    settle(store, lost, ERROR)
    assert sent(store, one)[0].status is DeliveryStatus.SENDING
    settle(store, again, OK)
    assert sent(store, one)[0].status is DeliveryStatus.DELIVERED


def test_a_clock_that_was_ahead_holds_up_nothing(store: Store) -> None:
    one, ahead = add(store), now() + timedelta(days=400)
    cancel_queued(store)
    (claimed,) = take(store, ahead)
    settle(store, claimed, ERROR, ahead)
    assert [again.attempt for again in take(store)] == [2]
    assert one == 1


def test_a_slow_webhook_leaves_places_for_others(store: Store) -> None:
    slow, quick = add(store), add(store)
    for _ in range(5):
        cancel_queued(store)
    with store.writing() as session:
        claimed = webhooks.claim_due(session, now(), busy={slow: 1}, each=2, total=3)
    assert [one.webhook_id for one in claimed] == [slow, quick, quick]


def test_a_webhook_that_is_gone_or_disabled_is_told_of_nothing_more(store: Store) -> None:
    gone, disabled = add(store), add(store)
    for _ in range(2):
        cancel_queued(store)
    with store.writing() as session:
        webhooks.change(session, disabled, enabled=False)
    (claimed,) = take(store, each=1)
    assert claimed.webhook_id == gone
    settle(store, claimed, Outcome(False, 410, "", gone=True))
    cancel_queued(store)
    with store.reading() as session:
        assert [row.enabled for row in webhooks.list_all(session)] == [False, False]
        assert "410" in str(webhooks.get(session, gone).reason)
    for number in (gone, disabled):
        assert [row.status for row in sent(store, number)] == [DeliveryStatus.FAILED] * 2
    assert take(store) == []
    with pytest.raises(Conflict, match="disabled"), store.writing() as session:
        webhooks.redeliver(session, gone, claimed.delivery_id)
    with store.writing() as session:
        assert webhooks.change(session, gone, enabled=True).reason is None
        webhooks.redeliver(session, gone, claimed.delivery_id)
    assert [again.message_id for again in take(store)] == [claimed.message_id]


def test_the_newest_of_what_has_ended_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "KEPT", 3)
    one = add(store)
    with store.writing() as session:
        for _ in range(6):
            webhooks.announce_test(session, one)
    for claimed in take(store)[:5]:
        settle(store, claimed, OK)
    assert [row.id for row in sent(store, one)] == [3, 4, 5, 6]


def test_a_webhook_is_deleted_with_what_waits_for_it(store: Store) -> None:
    one = add(store)
    cancel_queued(store)
    (claimed,) = take(store)
    with store.writing() as session:
        webhooks.remove(session, one)
    settle(store, claimed, OK)
    with store.reading() as session:
        assert session.get(Webhook, one) is None
        assert session.get(Delivery, claimed.delivery_id) is None
    assert add(store) == 2  # an id is not used again
