"""Names with versions: made, served, gone back over; and what keeps an experiment from being deleted."""

import pytest
from alembic import command
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect

from models.errors import Conflict, InvalidRequest, NotFound
from models.model_names import check_name
from models.store import Status, Store, artifacts, experiments, history, migrations, registry, runs
from models.store.states import ArtifactKind, WeightsChoice
from tests.models.store.helpers import add_experiment, in_processes, make_metrics, start


def ended(store: Store, status: Status = Status.COMPLETED) -> int:
    claim = start(store)
    with store.writing() as session:
        history.append_epoch(session, claim, make_metrics(1))
        runs.settle(session, claim, status)
    return claim.experiment_id


def put(store: Store, name: str, experiment_id: int, owner: str | None = None) -> int:
    with store.writing() as session:
        return registry.add_version(
            session,
            name,
            experiment_id=experiment_id,
            weights=WeightsChoice.BEST,
            epoch=1,
            sha256="0" * 64,
            owner=owner,
        ).version


def serves(store: Store, name: str) -> int:
    with store.reading() as session:
        return registry.current(session, name).version


def rollback(store: Store, name: str, to: int | None = None) -> int:
    with store.writing() as session:
        return registry.rollback(session, name, to).version


def test_a_name_serves_its_newest_version_and_a_rollback_goes_back_to_the_one_served_before(store: Store) -> None:
    first, second = ended(store), ended(store)
    assert [put(store, "cats", number) for number in (first, second, first)] == [1, 2, 3]
    assert rollback(store, "cats") == 2
    assert put(store, "cats", second) == 4, "numbers are not used again"
    assert rollback(store, "cats") == 2, "a version that was withdrawn is not gone back to"
    assert (rollback(store, "cats"), serves(store, "cats")) == (1, 1)
    with pytest.raises(Conflict, match="no version before it"):
        rollback(store, "cats")
    assert serves(store, "cats") == 1


def test_a_rollback_may_name_an_earlier_version(store: Store) -> None:
    number = ended(store)
    for _ in range(4):
        put(store, "cats", number)
    assert rollback(store, "cats", 2) == 2
    with store.reading() as session:
        assert registry.usable_versions(session, "cats") == [2, 1]
    for wrong, error, words in (
        (2, Conflict, "already"),
        (3, Conflict, "withdrawn"),
        (5, NotFound, "no version 5"),
        (2**40, NotFound, "no version"),
    ):
        with pytest.raises(error, match=words):
            rollback(store, "cats", wrong)


@pytest.mark.parametrize("what", [experiments.delete, experiments.request_resume])
def test_what_a_version_may_be_gone_back_to_is_neither_deleted_nor_trained_on(store: Store, what: object) -> None:
    first, second = ended(store, Status.CANCELLED), ended(store, Status.CANCELLED)
    put(store, "cats", first)
    put(store, "cats", second)
    for number, version in ((first, 1), (second, 2)):
        with pytest.raises(Conflict, match=rf"version {version} of model 'cats'") as raised, store.writing() as session:
            what(session, number)  # type: ignore[operator]
        assert raised.value.extra["models"] == [{"model": "cats", "version": version}]
    rollback(store, "cats")
    with store.writing() as session:
        what(session, second)  # type: ignore[operator]


def test_a_withdrawn_version_outlives_its_experiment(store: Store) -> None:
    first, second = ended(store), ended(store)
    put(store, "cats", first)
    put(store, "cats", second)
    rollback(store, "cats")
    with store.writing() as session:
        experiments.delete(session, second)
    with store.reading() as session:
        rows, more, total = registry.list_versions(session, "cats", before=None, limit=10)
    assert [(row.version, row.experiment_id) for row in rows] == [(2, None), (1, first)]
    assert (more, total) == (False, 2)


def test_a_name_is_removed_and_its_experiment_is_free(store: Store) -> None:
    number = ended(store)
    put(store, "cats", number)
    with store.writing() as session:
        registry.delete(session, "cats")
        experiments.delete(session, number)
        for gone in (registry.delete, registry.current):
            with pytest.raises(NotFound):
                gone(session, "cats")


def test_names_are_listed_in_pages(store: Store) -> None:
    number = ended(store)
    for name in ("b", "a", "c", "a"):
        put(store, name, number)
    with store.reading() as session:
        rows, more, total = registry.list_models(session, after="", limit=2)
        assert ([(row.model, row.version) for row in rows], more, total) == ([("a", 2), ("b", 1)], True, 3)
        rows, more, _ = registry.list_models(session, after="b", limit=2)
        assert ([row.model for row in rows], more) == (["c"], False)


def test_versions_are_counted_by_who_made_them(store: Store) -> None:
    number = ended(store)
    for name in ("a", "a", "b"):
        put(store, name, number, "ada")
    put(store, "a", number, "bob")
    with store.reading() as session:
        assert [registry.count_versions(session, owner) for owner in ("ada", "bob", "eve")] == [3, 1, 0]


def test_processes_that_name_at_once_get_a_version_each(store: Store, settings: object) -> None:
    number = ended(store)
    found = in_processes(4, lambda own, _: [put(own, "cats", number) for _ in range(3)], settings)  # type: ignore[arg-type]
    assert sorted(version for versions in found for version in versions) == list(range(1, 13))


BAD = ["", " ", "1", "7cats", "a/b", "..", ".a", "-a", "_a", "a b", "a\0", "a\n", "Kätzchen", "猫", "a" * 65, "a%", "'"]


@pytest.mark.parametrize("name", BAD)
def test_a_name_of_another_form_is_refused_and_the_nearest_is_said(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        put(store, name, ended(store))
    [entry] = raised.value.extra["errors"]
    assert entry["field"] == "name"
    if "nearest" in entry:
        check_name(entry["nearest"])


@given(st.text(max_size=80))
def test_the_nearest_name_is_a_good_one_whatever_was_asked(name: str) -> None:
    try:
        check_name(name)
    except InvalidRequest as error:
        if nearest := error.extra["errors"][0].get("nearest"):
            check_name(nearest)


def test_what_cannot_be_a_name_is_not_found(store: Store) -> None:
    with store.reading() as session:
        for name in [*BAD, "\ud800", "cats"]:
            with pytest.raises(NotFound):
                registry.current(session, name)


def test_a_lab_from_before_there_were_models_gets_them_with_its_data_in_place(store: Store) -> None:
    claim = start(store, name="kept")
    with store.writing() as session:
        history.append_epoch(session, claim, make_metrics(1))
        artifacts.record(session, claim, ArtifactKind.WEIGHTS_BEST, 0, f"{claim.experiment_id}/w", "0" * 64, 1)
        runs.settle(session, claim, Status.COMPLETED)
    put(store, "cats", claim.experiment_id)
    store.dispose()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "0003")
        assert "models" not in inspect(connection).get_table_names()
    engine.dispose()
    store.migrate()
    assert put(store, "cats", claim.experiment_id) == 1
    with store.reading() as session:
        assert experiments.get(session, claim.experiment_id).name == "kept"
        assert artifacts.newest(session, claim.experiment_id, ArtifactKind.WEIGHTS_BEST) is not None
        assert len(history.read(session, claim.experiment_id)) == 1
    assert add_experiment(store) == claim.experiment_id + 1
