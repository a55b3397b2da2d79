import json
import math
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.errors import LeaseLost
from models.notices import NoticeCode
from models.settings import Settings
from models.store import Status, Store, artifacts, events, experiments, history, runs
from models.store.columns import now
from models.store.runs import Claim
from models.store.states import ArtifactKind, EventKind, RunStatus
from models.store.tables import Event
from tests.models.store.helpers import add_experiment, claim, in_processes, make_metrics, make_spec, start

Write = Callable[[Session, Claim], object]

WRITES: dict[str, Write] = {
    "renew": lambda session, lease: runs.renew(session, lease, {"epoch": 1}),
    "settle": lambda session, lease: runs.settle(session, lease, Status.COMPLETED),
    "hand_back": lambda session, lease: runs.hand_back(session, lease, "gone", counts=True),
    "append_epoch": lambda session, lease: history.append_epoch(session, lease, make_metrics(1)),
    "rewind": lambda session, lease: history.rewind(session, lease, 0),
    "record": lambda session, lease: artifacts.record(session, lease, ArtifactKind.KERNELS, 0, "1/k", "0" * 64, 1),
    "forget": lambda session, lease: artifacts.forget(session, lease, ArtifactKind.CHECKPOINT, keep=0),
    "verdict": lambda session, lease: runs.set_verdict(session, lease, {"summary": "good"}),
    "environment": lambda session, lease: runs.set_environment(session, lease, {"torch": "2"}),
    "notice": lambda session, lease: runs.notice(session, lease, NoticeCode.RESUMED, "text", {}),
}


def dump(store: Store) -> str:
    """Everything that a late write could change."""
    with store.reading() as session:
        found = experiments.get(session, 1)
        rows = [[row.id, row.status, row.heartbeat, row.reason, row.start_epoch] for row in runs.list_for(session, 1)]
        seen = [found.status, found.attempt, found.revision, found.progress, found.verdict, found.environment]
        files = [str(record) for record in artifacts.list_for(session, 1)]
        told = [event.id for event in events.since(session, 0)]
        return json.dumps([rows, seen, files, told, [str(metrics) for metrics in history.read(session, 1)]])


def test_a_claim_carries_all_that_training_needs(store: Store) -> None:
    experiment_id = add_experiment(store, epochs=7)
    with store.writing() as session:
        claimed = runs.claim(session, experiment_id, "host-1", 3)
    assert claimed is not None
    assert (claimed.experiment_id, claimed.attempt, claimed.worker) == (experiment_id, 1, "host-1")
    assert claimed.spec == make_spec(epochs=7)
    assert (claimed.checkpoints, claimed.start_epoch) == ([], 0)
    with store.reading() as session:
        found = experiments.get(session, experiment_id)
        assert (found.status, found.attempt) == (Status.RUNNING, 1)
        assert found.started_at is not None
        assert found.progress is not None
        assert (found.progress["epochs"], found.progress["phase"]) == (7, "starting")
        assert runs.running(session) == [(experiment_id, claimed.run_id, 1, 0, "host-1")]
        (run,) = runs.list_for(session, experiment_id)
        assert (run.status, run.worker, run.attempt) == (RunStatus.RUNNING, "host-1", 1)


def test_only_what_is_queued_can_be_claimed(store: Store) -> None:
    claimed = start(store)
    for experiment_id in (claimed.experiment_id, 999):
        with store.writing() as session:
            assert runs.claim(session, experiment_id, "other", 3) is None
    with store.writing() as session:
        runs.settle(session, claimed, Status.COMPLETED)
        assert runs.claim(session, claimed.experiment_id, "other", 3) is None
    with store.reading() as session:
        assert len(runs.list_for(session, claimed.experiment_id)) == 1


def enqueue(store: Store, *experiment_ids: int) -> None:
    with store.writing() as session:
        experiments.mark_enqueued(session, *experiment_ids)


def train_all(store: Store) -> list[int]:
    """The experiments in the order in which a worker takes them."""
    order = []
    while True:
        with store.writing() as session:
            number = runs.next_queued(session)
        if number is None:
            return order
        order.append(number)
        claim(store, number)


def test_the_queue_is_in_the_order_of_messages_whatever_the_numbers_are(store: Store) -> None:
    first, second, third, unsent, also_unsent = (add_experiment(store) for _ in range(5))
    enqueue(store, third)
    enqueue(store, second, first)  # at the same moment
    assert train_all(store) == [third, first, second, unsent, also_unsent]


def test_a_clock_that_was_set_back_does_not_change_the_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    later, earlier = add_experiment(store), add_experiment(store)
    enqueue(store, earlier)
    monkeypatch.setattr("models.store.experiments.now", lambda: now() - timedelta(hours=1))
    enqueue(store, later)
    assert train_all(store) == [earlier, later]


@pytest.mark.parametrize("counts", [False, True], ids=["handed back", "lost"])
@pytest.mark.parametrize("recorded", [True, False], ids=["message recorded", "claimed before that"])
def test_interrupted_runs_continue_before_what_waits(store: Store, counts: bool, recorded: bool) -> None:
    interrupted, also = numbers = [add_experiment(store) for _ in range(2)]
    if recorded:
        enqueue(store, *numbers)
    claims = [claim(store, number) for number in numbers]
    waiting = [add_experiment(store) for _ in range(3)]
    enqueue(store, *waiting)
    with store.writing() as session:
        for claimed in reversed(claims):
            runs.hand_back(session, claimed, "gone", counts=counts)
    enqueue(store, *waiting, also, interrupted)  # their messages are sent again: nothing changes
    assert train_all(store) == [interrupted, also, *waiting]


def test_what_is_resumed_waits_at_the_end(store: Store) -> None:
    resumed = start(store)
    with store.writing() as session:
        runs.hand_back(session, resumed, "shutdown", counts=False)
        experiments.request_cancel(session, resumed.experiment_id)
    waiting = add_experiment(store)
    enqueue(store, waiting)
    with store.writing() as session:
        experiments.request_resume(session, resumed.experiment_id)
    enqueue(store, resumed.experiment_id)
    assert train_all(store) == [waiting, resumed.experiment_id]


def test_of_many_processes_that_claim_at_once_one_wins(store: Store, settings: Settings) -> None:
    wanted = [add_experiment(store) for _ in range(8)]

    def work(store: Store, number: int) -> list[int]:
        won = []
        for experiment_id in wanted:
            with store.writing() as session:
                if runs.claim(session, experiment_id, f"worker-{number}", 3) is not None:
                    won.append(experiment_id)
        return won

    won = [experiment_id for group in in_processes(6, work, settings) for experiment_id in group]
    assert sorted(won) == wanted
    with store.reading() as session:
        assert [row.experiment_id for row in runs.running(session)] == sorted(won)
        assert all(experiments.get(session, experiment_id).attempt == 1 for experiment_id in wanted)


@pytest.mark.parametrize("name", WRITES)
def test_a_write_of_an_attempt_that_was_replaced_is_refused_and_changes_nothing(store: Store, name: str) -> None:
    old = start(store)
    with store.writing() as session:
        runs.hand_back(session, old, "fell silent", counts=True)
    new = claim(store, old.experiment_id, "other")
    assert new.attempt == old.attempt + 1
    before = dump(store)
    with pytest.raises(LeaseLost, match="attempt"), store.writing() as session:
        WRITES[name](session, old)
    assert dump(store) == before
    with store.writing() as session:
        WRITES[name](session, new)


@pytest.mark.parametrize("name", WRITES)
def test_a_write_after_the_end_is_refused_and_changes_nothing(store: Store, name: str) -> None:
    claimed = start(store)
    with store.writing() as session:
        runs.settle(session, claimed, Status.COMPLETED)
    before = dump(store)
    with pytest.raises(LeaseLost, match="completed"), store.writing() as session:
        WRITES[name](session, claimed)
    assert dump(store) == before


@pytest.mark.parametrize("name", WRITES)
def test_a_write_to_a_deleted_experiment_is_refused(store: Store, name: str) -> None:
    claimed = start(store)
    with store.writing() as session:
        runs.settle(session, claimed, Status.CANCELLED)
        experiments.delete(session, claimed.experiment_id)
    with pytest.raises(LeaseLost, match="deleted"), store.writing() as session:
        WRITES[name](session, claimed)


def test_an_owner_that_slept_and_the_new_one_write_from_two_processes(store: Store, settings: Settings) -> None:
    old = start(store)
    with store.writing() as session:
        history.append_epoch(session, old, make_metrics(1, val_loss=9.0))
        runs.hand_back(session, old, "fell silent", counts=True)
    leases = [old, claim(store, old.experiment_id, "other")]

    def work(store: Store, number: int) -> int:
        refused = 0
        for epoch in range(1, 31):
            try:
                with store.writing() as session:
                    history.append_epoch(session, leases[number], make_metrics(epoch, val_loss=float(number)))
            except LeaseLost:
                refused += 1
        return refused

    assert sorted(in_processes(2, work, settings)) == [0, 30]
    with store.reading() as session:
        found = history.read(session, old.experiment_id)
    assert [(metrics.epoch, metrics.val_loss) for metrics in found] == [(epoch, 1.0) for epoch in range(1, 31)]


def test_renewing_beats_and_shows_progress(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        assert runs.renew(session, claimed, {"epoch": 2, "images_per_second": math.inf}) == (False, False)
        runs.renew(session, claimed, None)
    with store.reading() as session:
        assert runs.running(session)[0].heartbeat == 2
        found = experiments.get(session, claimed.experiment_id)
        assert found.progress == {"epoch": 2, "images_per_second": None}
        assert found.revision == 3, "created, claimed, progressed; a mere heartbeat is nothing to see"


@pytest.mark.parametrize("status", [status for status in Status if status.terminal])
def test_settling_ends_run_and_experiment(store: Store, status: Status) -> None:
    claimed = start(store, epochs=9)
    with store.writing() as session:
        history.append_epoch(session, claimed, make_metrics(1))
        history.append_epoch(session, claimed, make_metrics(2))
        runs.settle(session, claimed, status, reason="so it went", test={"loss": math.nan, "accuracy": 0.5, "epoch": 2})
    with store.reading() as session:
        found = experiments.get(session, claimed.experiment_id)
        assert (found.status, found.reason) == (status, "so it went")
        assert found.test == {"loss": None, "accuracy": 0.5, "epoch": 2}
        assert found.finished_at is not None
        assert found.progress is not None
        assert (found.progress["epoch"], found.progress["epochs"], found.progress["phase"]) == (2, 9, status)
        assert runs.running(session) == []
        (run,) = runs.list_for(session, claimed.experiment_id)
        assert (run.status, run.reason) == (status.value, "so it went")
        assert run.ended_at is not None
        last = events.since(session, 0, claimed.experiment_id)[-1]
        assert last.data == {"status": status, "attempt": 1, "reason": "so it went"}


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
def test_settling_with_what_is_no_end_is_refused(store: Store, status: Status) -> None:
    claimed = start(store)
    with pytest.raises(ValueError, match="not terminal"), store.writing() as session:
        runs.settle(session, claimed, status)


def test_the_attempt_that_uses_up_the_budget_fails_the_experiment_with_the_reason(store: Store) -> None:
    experiment_id = add_experiment(store)
    ends = []
    for _ in range(3):
        claimed = claim(store, experiment_id, max_attempts=3)
        with store.writing() as session:
            ends.append(runs.hand_back(session, claimed, "killed by signal 9", counts=True))
    assert ends == [Status.QUEUED, Status.QUEUED, Status.FAILED]
    with store.reading() as session:
        found = experiments.get(session, experiment_id)
        assert found.reason == "killed by signal 9 (given up after 3 attempts)"
        assert [run.status for run in runs.list_for(session, experiment_id)] == [RunStatus.LOST] * 3


def test_a_shutdown_does_not_use_up_the_budget(store: Store) -> None:
    experiment_id = add_experiment(store)
    for attempt in range(1, 8):
        claimed = claim(store, experiment_id, max_attempts=1)
        assert claimed.attempt == attempt
        with store.writing() as session:
            assert runs.hand_back(session, claimed, "shutdown", counts=False) is Status.QUEUED
    with store.reading() as session:
        assert {run.status for run in runs.list_for(session, experiment_id)} == {RunStatus.HANDED_BACK}


def test_a_reaper_hands_back_what_it_found_running(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        (found,) = runs.running(session)
        assert runs.hand_back(session, found, "its worker fell silent", counts=True) is Status.QUEUED
        with pytest.raises(LeaseLost):
            runs.hand_back(session, found, "again", counts=True)
    with pytest.raises(LeaseLost), store.writing() as session:
        runs.renew(session, claimed, None)


@pytest.mark.parametrize("counts", [True, False])
def test_a_run_that_was_to_be_cancelled_is_not_queued_again(store: Store, counts: bool) -> None:
    claimed = start(store)
    with store.writing() as session:
        experiments.request_cancel(session, claimed.experiment_id)
    with store.writing() as session:
        assert runs.hand_back(session, claimed, "killed", counts=counts) is Status.CANCELLED
    with store.writing() as session:
        assert experiments.request_cancel(session, claimed.experiment_id).status is Status.CANCELLED
        assert experiments.queued_ids(session) == []


def test_lowered_limits_fail_what_has_had_its_attempts(store: Store) -> None:
    experiment_id = add_experiment(store)
    claimed = claim(store, experiment_id, max_attempts=5)
    with store.writing() as session:
        runs.hand_back(session, claimed, "killed", counts=True)
        assert runs.claim(session, experiment_id, "worker", 1) is None
    with store.reading() as session:
        found = experiments.get(session, experiment_id)
        assert found.status is Status.FAILED
        assert found.reason is not None


def test_a_stored_spec_that_cannot_be_read_fails_the_experiment(store: Store) -> None:
    experiment_id = add_experiment(store)
    with store.writing() as session:
        found = experiments.get(session, experiment_id)
        found.spec = {**found.spec, "a_key_of_another_version": 1}
    with store.writing() as session:
        assert runs.claim(session, experiment_id, "worker", 3) is None
    with store.reading() as session:
        found = experiments.get(session, experiment_id)
        assert (found.status, found.attempt) == (Status.FAILED, 0)
        assert found.reason is not None
        assert "a_key_of_another_version" in found.reason


def test_the_next_attempt_goes_on_from_the_newest_checkpoint(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        for epoch in (1, 2, 3):
            history.append_epoch(session, claimed, make_metrics(epoch))
            artifacts.record(session, claimed, ArtifactKind.CHECKPOINT, epoch, f"1/c{epoch}", "0" * 64, 5)
        runs.hand_back(session, claimed, "killed", counts=True)
    again = claim(store, claimed.experiment_id)
    assert [record.epoch for record in again.checkpoints] == [3, 2, 1]
    assert again.start_epoch == 3
    with store.writing() as session:
        history.rewind(session, again, 2)
    with store.reading() as session:
        assert [run.start_epoch for run in runs.list_for(session, claimed.experiment_id)] == [0, 2]


def test_the_dataset_fingerprint_is_kept_with_the_experiment(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        runs.set_environment(session, claimed, {"dataset_fingerprint": "abc", "threads": 2})
        runs.set_verdict(session, claimed, {"findings": [{"evidence": {"values": [math.nan, 1.0]}}]})
    with store.reading() as session:
        found = experiments.get(session, claimed.experiment_id)
        assert found.dataset_fingerprint == "abc"
        assert found.verdict == {"findings": [{"evidence": {"values": [None, 1.0]}}]}
        assert runs.list_for(session, claimed.experiment_id)[0].environment == found.environment
        assert events.since(session, 0, claimed.experiment_id)[-1].kind == "verdict"


STEPS = st.lists(
    st.sampled_from(["claim", "lose", "hand back", "cancel", "resume", "complete", "fail", "renew"]), max_size=25
)


@given(STEPS)
@hypothesis_settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_an_experiment_is_owned_by_one_run_or_none(store: Store, steps: list[str]) -> None:
    experiment_id = add_experiment(store)
    leases: list[Claim] = []
    with store.writing() as session:
        for step in steps:
            _take(session, experiment_id, step, leases)
            found = experiments.get(session, experiment_id)
            owned = [row for row in runs.running(session) if row.experiment_id == experiment_id]
            assert len(owned) == (found.status is Status.RUNNING)
            assert all(row.attempt == found.attempt for row in owned)
            assert found.attempt == len(runs.list_for(session, experiment_id)) == len(leases)
            assert found.failed_attempts <= 3
            assert (found.finished_at is not None) == found.status.terminal
            for old in leases[:-1]:
                with pytest.raises(LeaseLost):
                    runs.renew(session, old, None)
        runs_ended = [run for run in runs.list_for(session, experiment_id) if run.ended_at is not None]
        assert len(runs_ended) == len(leases) - (found.status is Status.RUNNING if steps else 0)


def _take(session: Session, experiment_id: int, step: str, leases: list[Claim]) -> None:
    status = experiments.get(session, experiment_id).status
    if step == "claim":
        claimed = runs.claim(session, experiment_id, "w", 3)
        assert (claimed is not None) == (status is Status.QUEUED)
        leases += [claimed] if claimed else []
    elif step == "cancel":
        if status in (Status.QUEUED, Status.RUNNING, Status.CANCELLED):
            experiments.request_cancel(session, experiment_id)
    elif step == "resume":
        if status in (Status.FAILED, Status.CANCELLED, Status.DIVERGED):
            experiments.request_resume(session, experiment_id)
    elif leases and status is Status.RUNNING:
        lease = leases[-1]
        if step == "lose":
            runs.hand_back(session, lease, "lost", counts=True)
        elif step == "hand back":
            runs.hand_back(session, lease, "shutdown", counts=False)
        elif step == "renew":
            runs.renew(session, lease, {"epoch": 1})
        else:
            runs.settle(session, lease, Status.COMPLETED if step == "complete" else Status.FAILED, reason=step)


def test_one_verdict_is_told_at_a_time(store: Store) -> None:
    """A run of ten thousand epochs has as many verdicts, each of some kilobytes: who follows needs the newest."""
    ours = start(store)
    for number in range(3):
        with store.writing() as session:
            runs.set_verdict(session, ours, {"summary": f"verdict {number}", "findings": []})
    with store.reading() as session:
        told = session.scalars(select(Event).where(Event.kind == EventKind.VERDICT)).all()
        assert [event.data["summary"] for event in told] == ["verdict 2"]
