"""Names with versions, and the jobs that workers lease for them."""

import pytest
from alembic import command
from sqlalchemy import create_engine, inspect

from models.errors import Conflict, NotFound
from models.spec.data import DatasetSpec
from models.store import Store, datasets, experiments, migrations
from models.store.states import DatasetJobKind, DatasetStatus
from models.store.tables import DatasetVersion
from tests.models.store.helpers import add_experiment, make_spec

PRINT = "ab" * 32


def create(store: Store, name: str = "photos", owner: str | None = None) -> int:
    with store.writing() as session:
        return datasets.create_version(
            session, name, owner=owner, options={}, job=DatasetJobKind.IMPORT, job_options={"archive": "a.archive"}
        ).version


def claim(store: Store, worker: str = "w1") -> datasets.Claim:
    with store.writing() as session:
        found = datasets.claim_next(session, worker)
    assert found is not None
    return found


def finish(store: Store, claimed: datasets.Claim, fingerprint: str = PRINT) -> DatasetVersion | None:
    with store.writing() as session:
        return datasets.finish(session, claimed, fingerprint=fingerprint, num_bytes=5, info={"x": 1}, report={})


def test_a_job_is_done_by_the_worker_that_claimed_it_and_by_no_other(store: Store) -> None:
    create(store)
    first = claim(store)
    with store.writing() as session:
        assert datasets.claim_next(session, "w2") is None
        assert datasets.beat(session, first, {"phase": "reading", "done": 1, "total": 2})
    with store.reading() as session:
        assert datasets.get_version(session, "photos").progress == {"phase": "reading", "done": 1, "total": 2}
        assert [job.heartbeat for job in datasets.running(session)] == [1]
        assert datasets.archives_waiting(session) == {"a.archive"}
    with store.writing() as session:
        assert datasets.give_back(session, first.job_id, first.attempt, counts=True)
        assert not datasets.give_back(session, first.job_id, first.attempt, counts=True)
    second = claim(store, "w2")
    assert second.attempt == first.attempt + 1
    assert finish(store, first) is None, "the first worker was only slow"
    ready = finish(store, second)
    assert ready is not None
    assert (ready.status, ready.progress, ready.num_bytes) == (DatasetStatus.READY, None, 5)
    with store.reading() as session:
        assert datasets.job_ids(session) == set()


def test_a_job_that_loses_its_process_again_and_again_fails(store: Store) -> None:
    create(store)
    for counts in (False, False, True, True):
        claimed = claim(store)
        with store.writing() as session:
            datasets.give_back(session, claimed.job_id, claimed.attempt, counts=counts)
    with store.writing() as session:
        last = datasets.claim_next(session, "w9")
        assert last is not None, "a worker that shuts down does not count"
        datasets.give_back(session, last.job_id, last.attempt, counts=True)
    with store.reading() as session:
        version = datasets.get_version(session, "photos")
        assert version.status is DatasetStatus.FAILED
        assert "lost 3 times" in version.reason["detail"]
        assert datasets.job_ids(session) == set()


def test_a_worker_takes_the_jobs_of_the_kinds_that_it_asks_for_alone(store: Store) -> None:
    create(store)
    version = finish(store, claim(store))
    assert version is not None
    making = datasets.ANY_KIND - datasets.CHECKS
    with store.writing() as session:
        datasets.request_check(session, "photos", 1)
        assert not datasets.any_waiting(session, making)
        assert datasets.claim_next(session, "w1", making) is None
    create(store, "others")
    with store.writing() as session:
        assert datasets.any_waiting(session, datasets.CHECKS)
        checked = datasets.claim_next(session, "w1", datasets.CHECKS)
        made = datasets.claim_next(session, "w1", making)
    assert checked is not None
    assert made is not None
    assert (checked.dataset, made.dataset) == ("photos", "others")


def test_one_version_is_imported_at_a_time_and_numbers_go_on(store: Store) -> None:
    assert create(store) == 1
    with pytest.raises(Conflict, match="is being imported"):
        create(store)
    with store.writing() as session:
        datasets.fail(session, claim_in(session), {"detail": "no image"})
    assert create(store) == 2
    with pytest.raises(Conflict, match="capitals"):
        create(store, "PHOTOS")
    finish(store, claim(store))
    with store.reading() as session:
        assert datasets.get_version(session, "photos").version == 2
        assert [found.version for found in datasets.list_versions(session, "photos")] == [2, 1]
        with pytest.raises(NotFound, match="no version 7"):
            datasets.get_version(session, "photos", 7)


def claim_in(session: object) -> datasets.Claim:
    found = datasets.claim_next(session, "w1")  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_deleted_version_is_nobodys_job_and_its_spec_cannot_be_stored(store: Store) -> None:
    create(store, owner="ada")
    finish(store, claim(store))
    spec = make_spec(dataset={"name": "photos", "fingerprint": PRINT})
    with store.writing() as session:
        assert datasets.bytes_of_owner(session, "ada") == 5
        number = experiments.create(session, spec, layers=None, warnings=[]).id
    with store.writing() as session, pytest.raises(Conflict, match=f"experiment {number} will train on"):
        datasets.delete(session, "photos")
    with store.writing() as session:
        experiments.request_cancel(session, number)
        assert datasets.delete(session, "photos") == [1]
    with store.reading() as session:
        assert datasets.list_names(session) == []
        with pytest.raises(Conflict, match="was deleted"):
            datasets.check_there(session, DatasetSpec(name="photos", fingerprint=PRINT))


def test_a_database_from_before_there_were_datasets_keeps_what_it_holds(store: Store) -> None:
    number = add_experiment(store)
    create(store)
    store.dispose()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "0006")
        assert "datasets" not in inspect(connection).get_table_names()
    engine.dispose()
    store.migrate()
    with store.reading() as session:
        assert experiments.get(session, number).id == number
        assert datasets.list_names(session) == []
    assert create(store) == 1


def test_a_built_in_dataset_is_checked_by_a_job_and_is_no_upload(store: Store) -> None:
    for _ in range(2):
        with store.writing() as session:
            datasets.keep_built_in(session, "cifar10")
            datasets.request_check(session, "cifar10", datasets.BUILT_IN_VERSION)
    claimed = claim(store)
    assert (claimed.dataset, claimed.kind) == ("cifar10", DatasetJobKind.HEALTH)
    with store.writing() as session:
        assert datasets.beat(session, claimed, {"phase": "looking", "done": 1, "total": 2})
    with store.reading() as session:
        job = datasets.find_job(session, "cifar10", datasets.BUILT_IN_VERSION, DatasetJobKind.HEALTH)
        assert job is not None
        assert job.options["progress"] == {"phase": "looking", "done": 1, "total": 2}
        assert datasets.list_names(session) == []
        assert datasets.list_ready(session) == []
        assert datasets.count_importing(session) == 0
    with store.writing() as session:
        assert datasets.end_check(session, claimed)
        assert datasets.claim_next(session, "w1") is None
