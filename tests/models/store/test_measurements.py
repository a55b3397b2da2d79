import math

import pytest

from models.errors import NotFound
from models.settings import Settings
from models.store import Store, measurements
from models.store.states import MeasurementKind, MeasurementStatus
from tests.models.store.helpers import in_processes, make_spec


def create(store: Store) -> int:
    with store.writing() as session:
        return measurements.create(session, MeasurementKind.LR_TEST, make_spec(), {"steps": 100}).id


def test_a_measurement_waits_is_claimed_and_finished(store: Store) -> None:
    first, second = create(store), create(store)
    with store.writing() as session:
        measurement = measurements.claim_next(session, "worker")
        assert measurement is not None
        assert (measurement.id, measurement.kind, measurement.options) == (
            first,
            MeasurementKind.LR_TEST,
            {"steps": 100},
        )
        assert measurement.spec == make_spec().as_json()
    with store.writing() as session:
        measurements.beat(session, first)
        assert measurements.running(session) == [(first, 1, "worker")]
        assert measurements.finish(session, first, {"points": [{"lr": 0.1, "loss": math.nan}]})
    with store.reading() as session:
        found = measurements.get(session, first)
        assert (found.status, found.result) == (MeasurementStatus.COMPLETED, {"points": [{"lr": 0.1, "loss": None}]})
        assert found.finished_at is not None
        assert measurements.get(session, second).status is MeasurementStatus.QUEUED


def test_of_what_has_ended_the_newest_of_each_owner_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "KEPT", 2)
    with store.writing() as session:
        waiting = measurements.create(session, MeasurementKind.LR_TEST, make_spec(), owner="ann").id
        theirs = measurements.create(session, MeasurementKind.LR_TEST, make_spec(), owner="bob").id
        preflight = measurements.create(session, MeasurementKind.PREFLIGHT, make_spec(), owner="ann").id
        for measurement_id in (theirs, preflight):
            measurements.fail(session, measurement_id, "enough")
        made = []
        for _ in range(4):
            made.append(measurements.create(session, MeasurementKind.LR_TEST, make_spec(), owner="ann").id)
            measurements.finish(session, made[-1], {})
        last = measurements.create(session, MeasurementKind.LR_TEST, make_spec(), owner="ann").id
    with store.reading() as session:
        rows, _, total = measurements.list_page(session, MeasurementKind.LR_TEST, status=None, before=None, limit=10)
        assert [row.id for row in rows] == [last, made[3], made[2], theirs, waiting]
        assert total == 5
        assert measurements.get(session, preflight).status is MeasurementStatus.FAILED


def test_what_has_ended_does_not_end_again(store: Store) -> None:
    measurement_id = create(store)
    with store.writing() as session:
        measurements.claim_next(session, "worker")
        assert measurements.fail(session, measurement_id, "its worker fell silent")
    with store.writing() as session:
        assert not measurements.finish(session, measurement_id, {})
        assert not measurements.fail(session, measurement_id, "again")
        found = measurements.get(session, measurement_id)
        assert (found.status, found.reason, found.result) == (MeasurementStatus.FAILED, "its worker fell silent", None)
        assert measurements.claim_next(session, "worker") is None


def test_a_measurement_that_is_given_back_goes_to_the_next_worker(store: Store) -> None:
    measurement_id = create(store)
    with store.writing() as session:
        assert measurements.any_waiting(session)
        measurements.claim_next(session, "lost")
        assert not measurements.any_waiting(session)
        measurements.give_back(session, measurement_id)
    with store.writing() as session:
        again = measurements.claim_next(session, "next")
        assert again is not None
        assert (again.id, again.claimed_by) == (measurement_id, "next")
        measurements.finish(session, measurement_id, {})
        measurements.give_back(session, measurement_id)
        assert measurements.get(session, measurement_id).status is MeasurementStatus.COMPLETED, (
            "what has ended stays ended"
        )


def test_of_many_processes_one_gets_each_measurement(store: Store, settings: Settings) -> None:
    wanted = [create(store) for _ in range(12)]

    def work(store: Store, number: int) -> list[int]:
        won = []
        while True:
            with store.writing() as session:
                measurement = measurements.claim_next(session, f"worker-{number}")
            if measurement is None:
                return won
            won.append(measurement.id)

    won = [measurement_id for group in in_processes(4, work, settings) for measurement_id in group]
    assert sorted(won) == wanted


@pytest.mark.parametrize("measurement_id", [0, 1, 2**70])
def test_an_unknown_measurement_is_not_found(store: Store, measurement_id: int) -> None:
    with pytest.raises(NotFound), store.reading() as session:
        measurements.get(session, measurement_id)
