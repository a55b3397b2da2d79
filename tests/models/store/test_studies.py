"""Studies in the store: what a migration keeps."""

import json
from datetime import timedelta

from alembic import command
from sqlalchemy import create_engine, text

from models.spec.rows import ALL_EPOCHS, load_study, parse_study
from models.store import Store, migrations, studies
from models.store.columns import now
from models.store.states import StudyState
from models.store.studies import NewRow
from models.studies.images import RowImages

IMAGES = RowImages(title="CIFAR-10", train=40_000, val=10_000, test=10_000, classes=10)
STUDY = {"base": {"model": "baseline"}, "budget": "10m", "variants": [{"key": "wide", "overrides": {"model": "wide"}}]}


def create(store: Store) -> int:
    parsed = parse_study(STUDY)
    with store.writing() as session:
        return studies.create(session, parsed, [NewRow(row, [], [], IMAGES) for row in parsed.rows]).id


def test_of_several_workers_one_a_second_looks_at_a_study(store: Store) -> None:
    number = create(store)

    def due(looked_seconds_ago: float | None, seconds: float = 0.75) -> list[int]:
        with store.writing() as session:
            found = studies.get(session, number)
            found.ticked_at = None if looked_seconds_ago is None else now() - timedelta(seconds=looked_seconds_ago)
            session.flush()
            return studies.due_ids(session, seconds)

    assert due(None) == [number], "a new one, or one that was resumed"
    assert due(0.0, seconds=60) == []
    assert due(61.0, seconds=60) == [number]
    assert due(-3600.0) == [number], "written by a clock that is an hour ahead"
    with store.writing() as session:
        studies.get(session, number).state = StudyState.COMPLETED
    assert due(None) == []


def test_a_study_from_before_min_epochs_keeps_all_epochs_of_the_rows_that_did(store: Store) -> None:
    number = create(store)
    store.dispose()
    engine = create_engine(store.url)
    with engine.begin() as connection:
        command.downgrade(migrations.make_config(connection), "0008")
        connection.execute(text("UPDATE study_rows SET keeps_epochs = :kept WHERE position = 1"), {"kept": True})
        spec = json.loads(connection.execute(text("SELECT spec FROM studies")).scalar_one())
        spec["variants"][0]["keeps_epochs"] = True
        connection.execute(text("UPDATE studies SET spec = :spec"), {"spec": json.dumps(spec)})
    engine.dispose()
    store.migrate()
    with store.reading() as session:
        first, second = studies.rows_of(session, number)[:2]
        assert (first.min_epochs, second.min_epochs) == (1, ALL_EPOCHS)
        assert load_study(studies.get(session, number).spec).variants[0].min_epochs == ALL_EPOCHS
