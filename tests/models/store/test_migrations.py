import logging
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from models.errors import Conflict, Unavailable
from models.settings import Settings
from models.spec.rows import parse_study
from models.store import Status, Store, experiments, measurements, migrations, studies, webhooks
from models.store.sqlite import dbapi
from models.store.states import MeasurementKind, MeasurementStatus
from models.store.tables import Base
from models.studies.images import RowImages
from tests.models.store.helpers import add_experiment, in_processes, make_spec, sqlite_only


def test_the_migrated_schema_is_the_one_the_tables_describe(store: Store) -> None:
    engine = create_engine(store.url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        inspector = inspect(connection)
        for name, table in Base.metadata.tables.items():
            found = {index["name"]: index["column_names"] for index in inspector.get_indexes(name)}
            wanted = {str(index.name): [column.name for column in index.columns] for index in table.indexes}
            assert wanted.items() <= found.items(), name
            assert inspector.get_pk_constraint(name)["name"] in (f"pk_{name}", None), name
            rules = {key["name"]: key["options"] for key in inspector.get_foreign_keys(name)}
            for key in table.foreign_key_constraints:
                assert rules[str(key.name)] == {"ondelete": key.ondelete}
        if store.is_sqlite:
            _check_sqlite_tables(connection)
    engine.dispose()


def _check_sqlite_tables(connection: Connection) -> None:
    definitions = dict(connection.execute(text("SELECT name, sql FROM sqlite_master")).all())
    for name in ("experiments", "events", "probes"):
        assert "AUTOINCREMENT" in definitions[name]
    for name in ("epoch_metrics", "summaries", "artifacts"):
        assert "WITHOUT ROWID" in definitions[name]


def test_a_database_is_migrated_down_to_nothing_and_up_again(store: Store) -> None:
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
    store.migrate()
    assert add_experiment(store) == 1


def test_a_probe_from_before_probes_had_owners_is_nobodys(store: Store) -> None:
    with store.writing() as session:
        number = measurements.create(session, MeasurementKind.LR_TEST, make_spec(), owner="ada").id
    store.dispose()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "0002")
        assert "owner" not in {column["name"] for column in inspect(connection).get_columns("probes")}
    engine.dispose()
    store.migrate()
    with store.reading() as session:
        found = measurements.get(session, number)
        assert (found.owner, found.status) == (None, MeasurementStatus.QUEUED)


def test_experiments_from_before_there_were_studies_are_kept(store: Store) -> None:
    number = add_experiment(store)
    store.dispose()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "0005")
        assert "studies" not in inspect(connection).get_table_names()
    engine.dispose()
    store.migrate()
    with store.reading() as session:
        assert experiments.get(session, number).id == number
        assert studies.list_page(session, status=None, before=None, limit=10) == ([], False, 0)


def test_experiments_from_before_there_were_webhooks_are_kept_and_end_as_before(store: Store) -> None:
    number = add_experiment(store)
    store.dispose()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "0009")
        assert "webhooks" not in inspect(connection).get_table_names()
    engine.dispose()
    store.migrate()
    with store.writing() as session:
        assert experiments.request_cancel(session, number).status is Status.CANCELLED
        assert webhooks.list_all(session) == []


def test_studies_from_before_there_were_searches_are_kept(store: Store) -> None:
    number = add_experiment(store)
    with store.writing() as session:
        parsed = parse_study({"base": "baseline", "grid": {"batch_size": [16, 32]}})
        images: RowImages = {"title": "CIFAR-10", "train": 8, "val": 2, "test": 2, "classes": 10}
        rows = [studies.NewRow(row, [], [], images) for row in parsed.rows]
        study = studies.create(session, parsed, rows).id
    store.dispose()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "0011")
        assert "params" not in {column["name"] for column in inspect(connection).get_columns("study_rows")}
    engine.dispose()
    store.migrate()
    with store.reading() as session:
        assert experiments.get(session, number).stop_requested is None
        assert studies.get(session, study).search is None
        assert [row.params for row in studies.rows_of(session, study)] == [None, None]


def test_processes_that_migrate_at_once_get_one_schema(tmp_path: Path) -> None:
    def work(store: Store, number: int) -> int:
        store.migrate()
        return add_experiment(store)

    found = in_processes(6, work, Settings(data_dir=tmp_path / "new" / "lab"))
    assert sorted(found) == [1, 2, 3, 4, 5, 6]


@sqlite_only
def test_a_database_that_refuses_at_once_is_migrated_when_it_no_longer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, upgrade = [], migrations.upgrade

    def refused_once(connection: Connection) -> None:
        calls.append(connection)
        if len(calls) == 1:
            raise OperationalError("PRAGMA journal_mode", None, dbapi.OperationalError("database is locked"))
        upgrade(connection)

    monkeypatch.setattr(migrations, "upgrade", refused_once)
    store = Store(Settings(data_dir=tmp_path / "lab"))
    store.migrate()
    assert (len(calls), add_experiment(store)) == (2, 1)
    store.dispose()


def test_migrating_touches_no_logger(tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, list[logging.Handler], bool]]:
        names = ["", "alembic", "alembic.runtime.migration", "sqlalchemy", "celery", "uvicorn"]
        loggers = [logging.getLogger(name) for name in names]
        return {logger.name: (logger.level, list(logger.handlers), logger.disabled) for logger in loggers}

    before = state()
    store = Store(Settings(data_dir=tmp_path))
    store.migrate()
    store.dispose()
    assert state() == before


def test_a_database_of_a_later_version_is_left_alone(store: Store) -> None:
    with store.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="another version"):
        store.migrate()
    with store.reading() as session:
        assert experiments.queued_ids(session) == []


def test_a_database_that_was_never_migrated_says_so(tmp_path: Path) -> None:
    store = Store(Settings(data_dir=tmp_path))
    with pytest.raises(Unavailable, match="no tables"), store.reading() as session:
        experiments.queued_ids(session)
    store.dispose()
