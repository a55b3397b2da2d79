"""The reaper: when a lease counts as silent, its periodic tasks, its effect on runs and folders; a real database."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from models import queue
from models.errors import Unavailable
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Status, experiments, runs
from tests.stores import make_tables
from worker import folders
from worker.processes.nursery import Nursery
from worker.reaper import PeriodicAction, Reaper, Silence
from worker.runtime import Runtime

LEASE_SECONDS = 5.0


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    settings = Settings(
        data_dir=tmp_path, lease_seconds=LEASE_SECONDS, broker_url=f"redis+socket://{tmp_path}/nobody-listens"
    )
    make_tables(settings)
    return Runtime(settings, "reaper@test", queue.make_celery(settings), Nursery())


def claimed(runtime: Runtime) -> runs.Claim:
    with runtime.store.writing() as session:
        experiment = experiments.create(session, parse_spec({"model": "baseline"}), layers=None, warnings=[])
        claim = runs.claim(session, experiment.id, "other@test", 3)
    assert claim is not None
    return claim


def status(runtime: Runtime, claim: runs.Claim) -> Status:
    with runtime.store.reading() as session:
        return experiments.get(session, claim.experiment_id).status


def test_silence_is_counted_from_when_a_counter_was_last_seen_to_move() -> None:
    silence = Silence()
    assert silence.watch({"a": 1}, 9.0) == {"a": 0.0}
    assert silence.watch({"a": 1}, 2.0) == {"a": 2.0}
    assert silence.watch({"a": 1, "b": 7}, 2.0) == {"a": 4.0, "b": 0.0}
    assert silence.watch({"a": 2, "b": 7}, 2.0) == {"a": 0.0, "b": 2.0}
    assert silence.watch({"b": 7}, 1.0) == {"b": 3.0}
    assert silence.watch({"a": 2}, 1.0) == {"a": 0.0}, "a counter that was gone is new again"


def test_a_run_that_is_renewed_is_left_alone_and_a_silent_one_given_back(runtime: Runtime) -> None:
    reaper, renewed, silent = Reaper(runtime), claimed(runtime), claimed(runtime)
    for _ in range(5):
        reaper.end_silent_runs(1.5)
        with runtime.store.writing() as session:
            runs.renew(session, renewed, None)
    assert status(runtime, renewed) is Status.RUNNING
    assert status(runtime, silent) is Status.QUEUED


def test_a_run_whose_worker_ended_while_the_database_was_away_loses_no_attempt(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise Unavailable("the database does not answer")

    reaper, ended, ended_later = Reaper(runtime), claimed(runtime), claimed(runtime)
    reaper.end_silent_runs(1.0)
    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "reading", away)
        with pytest.raises(Unavailable):
            reaper.end_silent_runs(1.0)
    for claim in (ended, ended_later, ended_later):
        with (
            runtime.store.writing() as session
        ):  # the first one's last renewal, which came before the outage was noticed
            runs.renew(session, claim, None)
        reaper.end_silent_runs(1.0)
    for _ in range(5):
        reaper.end_silent_runs(1.5)
    assert status(runtime, ended) is status(runtime, ended_later) is Status.QUEUED
    with runtime.store.reading() as session:
        lost = [experiments.get(session, each.experiment_id).failed_attempts for each in (ended, ended_later)]
    assert lost == [0, 1], "the one that was seen alive afterwards has ended by itself"


def test_a_run_whose_worker_ended_in_an_outage_loses_no_attempt_though_the_reaper_waited_too(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise Unavailable("the database does not answer")

    reaper, ended = Reaper(runtime), claimed(runtime)
    reaper.end_silent_runs(1.0)
    with monkeypatch.context() as outage:
        outage.setattr(runtime.store, "reading", away)
        outage.setattr(runtime.store, "writing", away)
        for action in (reaper.end_silent_runs, reaper.beat):
            with pytest.raises(Unavailable):
                action(1.0)
    reaper.end_silent_runs(1.0)
    reaper.beat(2.0)
    for _ in range(6):
        reaper.end_silent_runs(1.5)
    with runtime.store.reading() as session:
        found = experiments.get(session, ended.experiment_id)
    assert (found.status, found.failed_attempts) == (Status.QUEUED, 0)


def test_nothing_ends_before_its_lease_is_over(runtime: Runtime) -> None:
    reaper, claim = Reaper(runtime), claimed(runtime)
    for elapsed in (99.0, 2.0, 2.0, 0.9):  # how long it was silent before it was first seen does not count
        reaper.end_silent_runs(elapsed)
    assert status(runtime, claim) is Status.RUNNING


def test_a_reaper_that_had_to_wait_for_the_database_gives_everyone_a_new_lease_once(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper, claim = Reaper(runtime), claimed(runtime)
    clock = [1000.0]
    monkeypatch.setattr("worker.reaper.time.monotonic", lambda: clock[0])
    writing = runtime.store.writing

    def writing_late() -> AbstractContextManager[Session]:
        clock[0] += 3.0
        return writing()

    monkeypatch.setattr(runtime.store, "writing", writing_late)
    reaper.end_silent_runs(0.0)
    reaper.end_silent_runs(LEASE_SECONDS + 1)  # and the write that would end it has to wait
    assert status(runtime, claim) is Status.RUNNING
    reaper.end_silent_runs(LEASE_SECONDS)
    reaper.end_silent_runs(LEASE_SECONDS - 1)
    assert status(runtime, claim) is Status.RUNNING
    reaper.end_silent_runs(2.0)
    assert status(runtime, claim) is Status.QUEUED


def test_a_reaper_whose_turn_never_came_gives_everyone_a_new_lease_when_it_comes_at_once(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy() -> None:
        raise Unavailable("the database was busy for 5 s")

    reaper, claim = Reaper(runtime), claimed(runtime)
    reaper.end_silent_runs(0.0)
    with monkeypatch.context() as lock:
        lock.setattr(runtime.store, "writing", busy)
        with pytest.raises(Unavailable):
            reaper.end_silent_runs(LEASE_SECONDS + 1)
    reaper.end_silent_runs(0.5)  # the lock is gone, and this turn comes before the owner's
    assert status(runtime, claim) is Status.RUNNING
    for elapsed in (0.0, LEASE_SECONDS + 1):
        reaper.end_silent_runs(elapsed)
    assert status(runtime, claim) is Status.QUEUED, "an owner that stays silent has lost it all the same"


def test_a_silent_run_that_was_to_be_cancelled_is_cancelled(runtime: Runtime) -> None:
    reaper, claim = Reaper(runtime), claimed(runtime)
    with runtime.store.writing() as session:
        experiments.request_cancel(session, claim.experiment_id)
    for elapsed in (0.0, LEASE_SECONDS + 1):
        reaper.end_silent_runs(elapsed)
    assert status(runtime, claim) is Status.CANCELLED


def test_a_reaper_that_was_away_counts_its_absence_as_one_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, ticks = [1000.0], []
    monkeypatch.setattr("worker.reaper.time.monotonic", lambda: clock[0])
    action = PeriodicAction(0.0, ticks.append)
    action.do_if_due()
    clock[0] += 0.5
    action.do_if_due()
    clock[0] += 3600
    action.do_if_due()
    assert ticks == [0.0, 0.5, 2.0]


def test_an_action_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [1000.0], []
    monkeypatch.setattr("worker.reaper.time.monotonic", lambda: clock[0])

    def stumble(elapsed: float) -> None:
        calls.append(elapsed)
        raise RuntimeError("on purpose")

    action = PeriodicAction(1.0, stumble)
    action.do_if_due()
    clock[0] += 0.5
    action.do_if_due()
    clock[0] += 1.0
    action.do_if_due()
    assert calls == [0.0, 1.5]


def test_only_folders_of_deleted_experiments_are_removed(runtime: Runtime) -> None:
    first, second, third = (claimed(runtime) for _ in range(3))
    directory = runtime.settings.experiments_dir
    for number in (first.experiment_id, second.experiment_id, third.experiment_id, 99):
        folders.attempt_folder(directory, number, 1).mkdir(parents=True)
    (directory / "notes").mkdir()
    with runtime.store.writing() as session:
        runs.settle(session, second, Status.CANCELLED)
        experiments.delete(session, second.experiment_id)
    Reaper(runtime).prune(0.0)
    # 99 may be from before a backup was restored: this database never knew it, so it is not ours to remove.
    assert folders.numbered_folders(directory) == [first.experiment_id, third.experiment_id, 99]
    assert (directory / "notes").exists()


def test_a_broker_that_is_away_is_no_reason_to_stop(runtime: Runtime) -> None:
    with runtime.store.writing() as session:
        experiments.create(session, parse_spec({"model": "baseline"}), layers=None, warnings=[])
    reaper = Reaper(runtime)
    for _ in range(3):
        reaper.rebuild_queue(1.0)
    with runtime.store.reading() as session:
        assert len(experiments.waiting(session)) == 1
