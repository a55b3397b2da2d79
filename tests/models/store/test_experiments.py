from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from models.errors import Conflict, InvalidRequest, NotFound
from models.settings import Settings
from models.store import Status, Store, artifacts, events, experiments, history, runs
from models.store.columns import now
from models.store.listing import list_page
from models.store.tables import Base, Experiment
from tests.models.store.helpers import (
    add_experiment,
    claim,
    in_processes,
    make_metrics,
    make_spec,
    sqlite_only,
    start,
)

TERMINAL = [status for status in Status if status.terminal]


def end(store: Store, status: Status) -> int:
    """A new experiment that has ended so."""
    claimed = start(store)
    with store.writing() as session:
        runs.settle(session, claimed, status, reason="a reason")
    return claimed.experiment_id


def get(store: Store, experiment_id: int) -> Experiment:
    with store.reading() as session:
        return experiments.get(session, experiment_id)


def states(store: Store, experiment_id: int) -> list[str]:
    with store.reading() as session:
        found = events.since(session, 0, experiment_id)
        return [event.data["status"] for event in found if event.kind == "state"]


def test_a_new_experiment_is_queued_complete_and_told(store: Store) -> None:
    spec = make_spec(name="first", tags=["b", "a", "b"], epochs=3)
    layers: list[dict[str, Any]] = [{"name": "features.0", "parameters": 760}]
    with store.writing() as session:
        original = experiments.create(session, make_spec(), layers=None, warnings=[]).id
        experiment_id = experiments.create(
            session, spec, layers=layers, warnings=[{"code": "w"}], owner="ada", reproduces=original
        ).id
    found = get(store, experiment_id)
    assert (found.status, found.attempt, found.revision) == (Status.QUEUED, 0, 1)
    assert (found.name, found.model, found.dataset, found.owner) == ("first", "baseline", "cifar10", "ada")
    assert found.tags == ["b", "a"]
    assert found.spec == spec.as_json()
    assert found.spec_digest == spec.digest()
    assert (found.layers, found.warnings, found.reproduces) == (layers, [{"code": "w"}], original)
    assert abs(now() - found.created_at) < timedelta(minutes=1)
    assert states(store, experiment_id) == ["queued"]


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a\\b", pytest.param("x\x00y", marks=sqlite_only), "%252e", "\u202eabc", "n" * 200, "🙂"],
)
def test_any_name_is_stored_as_it_is(store: Store, name: str) -> None:
    assert get(store, add_experiment(store, name=name)).name == name


@pytest.mark.parametrize("experiment_id", [0, -1, 1, 2**31, 2**63 - 1, 2**63, 10**30])
def test_an_unknown_id_is_not_found(store: Store, experiment_id: int) -> None:
    with pytest.raises(NotFound, match=str(experiment_id)), store.reading() as session:
        experiments.get(session, experiment_id)


def test_an_idempotency_key_makes_one_experiment(store: Store) -> None:
    def post(key: str, body: str, owner: str | None = None) -> tuple[int, bool]:
        with store.writing() as session:
            experiment, created = experiments.create_once(
                session, key, body, owner, lambda: experiments.create(session, make_spec(), layers=[], warnings=[])
            )
            return experiment.id, created

    assert post("k", "body") == (1, True)
    assert post("k", "body") == (1, False)
    assert post("k", "body", owner="ada") == (2, True), "another owner's key is another key"
    assert post("l", "body") == (3, True)
    with pytest.raises(InvalidRequest, match="experiment 1"):
        post("k", "another body")
    for bad in ("", "x" * 256):
        with pytest.raises(InvalidRequest, match="characters"):
            post(bad, "body")
    with store.reading() as session:
        assert list_page(session).total == 3


def test_a_key_whose_experiment_could_not_be_made_is_free_again(store: Store) -> None:
    def fail() -> Experiment:
        raise Conflict("no")

    with pytest.raises(Conflict), store.writing() as session:
        experiments.create_once(session, "k", "body", None, fail)
    with store.writing() as session:
        _, created = experiments.create_once(
            session, "k", "body", None, lambda: experiments.create(session, make_spec(), layers=[], warnings=[])
        )
    assert created


def test_posts_with_one_key_from_many_threads_and_processes_make_one_experiment(
    store: Store, settings: Settings
) -> None:
    def post(store: Store, number: int) -> tuple[int, bool]:
        with store.writing() as session:
            experiment, created = experiments.create_once(
                session, "key", "body", None, lambda: experiments.create(session, make_spec(), layers=[], warnings=[])
            )
            return experiment.id, created

    def work(store: Store, number: int) -> list[tuple[int, bool]]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=25) as pool:
            return list(pool.map(lambda index: post(store, index), range(25)))

    answers = [answer for group in in_processes(2, work, settings) for answer in group]
    assert len(answers) == 50
    assert {identifier for identifier, _ in answers} == {1}
    assert [created for _, created in answers].count(True) == 1
    with store.reading() as session:
        assert list_page(session).total == 1


def test_cancelling_what_is_queued_ends_it_at_once_and_again_changes_nothing(store: Store) -> None:
    experiment_id = add_experiment(store)
    for _ in range(3):
        with store.writing() as session:
            found = experiments.request_cancel(session, experiment_id)
            assert found.status is Status.CANCELLED
    found = get(store, experiment_id)
    assert found.finished_at is not None
    assert found.revision == 2
    assert states(store, experiment_id) == ["queued", "cancelled"]
    with store.writing() as session:
        assert runs.claim(session, experiment_id, "w", 3) is None


def test_cancelling_what_runs_asks_its_worker_once(store: Store) -> None:
    claimed = start(store)
    revision = get(store, claimed.experiment_id).revision
    for _ in range(3):
        with store.writing() as session:
            assert experiments.request_cancel(session, claimed.experiment_id).status is Status.RUNNING
    assert get(store, claimed.experiment_id).revision == revision + 1
    with store.writing() as session:
        assert runs.renew(session, claimed, None).cancel
        runs.settle(session, claimed, Status.CANCELLED)
    with store.writing() as session:
        assert experiments.request_cancel(session, claimed.experiment_id).status is Status.CANCELLED


@pytest.mark.parametrize("status", [status for status in TERMINAL if status is not Status.CANCELLED])
def test_cancelling_what_has_ended_otherwise_is_a_conflict(store: Store, status: Status) -> None:
    experiment_id = end(store, status)
    with pytest.raises(Conflict, match=status), store.writing() as session:
        experiments.request_cancel(session, experiment_id)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.DIVERGED])
def test_what_did_not_complete_resumes_with_a_new_budget_of_attempts(store: Store, status: Status) -> None:
    experiment_id = end(store, status)
    with store.writing() as session:
        experiments.get(session, experiment_id).failed_attempts = 3
    with store.writing() as session:
        experiments.request_resume(session, experiment_id)
    found = get(store, experiment_id)
    assert (found.status, found.reason, found.finished_at, found.enqueued_at) == (Status.QUEUED, None, None, None)
    assert claim(store, experiment_id, max_attempts=3).attempt == 2


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.COMPLETED])
def test_what_goes_on_or_is_complete_does_not_resume(store: Store, status: Status) -> None:
    experiment_id = end(store, status) if status.terminal else add_experiment(store)
    if status is Status.RUNNING:
        claim(store, experiment_id)
    with pytest.raises(Conflict, match=status), store.writing() as session:
        experiments.request_resume(session, experiment_id)


def test_deleting_leaves_no_row_behind_and_the_number_is_not_given_again(store: Store) -> None:
    claimed = start(store, tags=["x", "y"])
    with store.writing() as session:
        history.append_epoch(session, claimed, make_metrics(1))
        artifacts.record(session, claimed, artifacts.ArtifactKind.CHECKPOINT, 1, "1/c", "0" * 64, 5)
        child = experiments.create(session, make_spec(), layers=[], warnings=[], reproduces=claimed.experiment_id).id
    with pytest.raises(Conflict, match="running"), store.writing() as session:
        experiments.delete(session, claimed.experiment_id)
    with store.writing() as session:
        runs.settle(session, claimed, Status.COMPLETED)
        experiments.create_once(session, "key", "body", None, lambda: experiments.get(session, claimed.experiment_id))
    with store.writing() as session:
        experiments.delete(session, claimed.experiment_id)
    with store.reading() as session:
        for table in Base.metadata.sorted_tables:
            if "experiment_id" in table.columns:
                where = table.columns["experiment_id"] == claimed.experiment_id
                assert session.scalar(select(func.count()).select_from(table).where(where)) == 0, table.name
        assert experiments.get(session, child).reproduces is None
    with store.writing() as session:
        experiments.delete(session, child)
    assert add_experiment(store) == child + 1


def test_deleting_twice_is_not_found(store: Store) -> None:
    experiment_id = add_experiment(store)
    with store.writing() as session:
        experiments.delete(session, experiment_id)
    with pytest.raises(NotFound), store.writing() as session:
        experiments.delete(session, experiment_id)


def test_what_waits_for_a_message_is_known(store: Store) -> None:
    first, second, third = (add_experiment(store) for _ in range(3))
    claim(store, third)
    with store.writing() as session:
        assert experiments.waiting(session) == [first, second]
        experiments.mark_enqueued(session, first)
        experiments.mark_enqueued(session, third)
    with store.writing() as session:
        assert experiments.waiting(session) == [second]
        assert experiments.queued_ids(session) == [first, second]


def test_experiments_are_counted_by_status_and_by_owner(store: Store) -> None:
    for owner in ("ada", "ada", "bob", None):
        with store.writing() as session:
            experiments.create(session, make_spec(), layers=[], warnings=[], owner=owner)
    claim(store, 1)
    with store.reading() as session:
        counts = experiments.count_by_status(session)
        assert set(counts) == set(Status)
        assert (counts[Status.QUEUED], counts[Status.RUNNING], counts[Status.FAILED]) == (3, 1, 0)
        assert experiments.count_queued(session, "ada") == 1
        assert experiments.count_queued(session, None) == 1
        assert experiments.count_queued(session, "eve") == 0


def test_numbers_of_deleted_experiments_are_told_from_unknown_ones(store: Store) -> None:
    first, second = add_experiment(store), add_experiment(store)
    with store.writing() as session:
        experiments.delete(session, first)
    with store.reading() as session:
        assert experiments.deleted_among(session, [first, second, 99]) == {first}, "99 is not known to have been"
        assert not experiments.deleted_among(session, [])
