import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.exc import StatementError

from models.store import Store, experiments
from models.store.rows import add_event
from models.store.states import EventKind
from models.store.tables import Experiment
from tests.models.store.helpers import add_experiment


def test_times_come_back_in_utc_with_their_zone(store: Store) -> None:
    experiment_id = add_experiment(store)
    moment = datetime(2026, 11, 24, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    with store.writing() as session:
        experiments.get(session, experiment_id).started_at = moment
    with store.reading() as session:
        found = experiments.get(session, experiment_id).started_at
    assert found == moment
    assert found is not None
    assert found.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    experiment_id = add_experiment(store)
    with pytest.raises(StatementError, match="no timezone"), store.writing() as session:
        experiments.get(session, experiment_id).started_at = datetime(2026, 1, 1)  # noqa: DTZ001


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_columns_refuse_what_is_not_json(store: Store, value: float) -> None:
    experiment_id = add_experiment(store)
    with pytest.raises((StatementError, ValueError), match="not JSON compliant"), store.writing() as session:
        add_event(session, experiment_id, EventKind.NOTICE, {"deep": [{"value": value}]})
    with pytest.raises((StatementError, ValueError), match="not JSON compliant"), store.writing() as session:
        experiments.get(session, experiment_id).progress = {"seconds_left": value}


def test_no_json_is_null_in_the_database(store: Store) -> None:
    add_experiment(store)
    with store.reading() as session:
        assert session.execute(text("SELECT verdict IS NULL, spec IS NULL FROM experiments")).one() == (1, 0)


def test_a_status_is_stored_as_its_word(store: Store) -> None:
    add_experiment(store)
    with store.reading() as session:
        assert session.execute(text("SELECT status FROM experiments")).scalar_one() == "queued"
        assert session.query(Experiment.status).scalar() == "queued"
