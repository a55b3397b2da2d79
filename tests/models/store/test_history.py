import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.curves.metrics import SERIES, EpochMetrics, Summary, summarise
from models.store import Store, events, experiments, history, runs
from models.store.tables import SummaryRow
from tests.models.store.helpers import add_experiment, claim, make_metrics, start

number = st.floats(-1e9, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf])
values = st.fixed_dictionaries(dict.fromkeys(SERIES, number))
appends = st.tuples(st.just("append"), st.integers(0, 3), values)
rewinds = st.tuples(st.just("rewind"), st.integers(0, 5), st.none())


def stored_summaries(session: Session, experiment_id: int) -> dict[str, Summary]:
    rows = session.scalars(select(SummaryRow).where(SummaryRow.experiment_id == experiment_id))
    return {row.series: Summary(row.best, row.best_epoch, row.last) for row in rows}


def same(metrics: EpochMetrics) -> dict[str, Any]:
    """An epoch in a form in which NaN equals NaN."""
    return metrics.as_json()


def test_epochs_are_read_back_as_they_were_appended(store: Store) -> None:
    claimed = start(store)
    written = [make_metrics(epoch, val_loss=math.pi / epoch, lr=1e-12 * epoch) for epoch in range(1, 6)]
    for metrics in written:
        with store.writing() as session:
            history.append_epoch(session, claimed, metrics)
    with store.reading() as session:
        assert history.read(session, claimed.experiment_id) == written


def test_what_is_not_finite_is_read_back_as_nan_and_what_was_not_measured_as_none(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        history.append_epoch(session, claimed, make_metrics(1, val_loss=math.inf, grad_norm=None, train_loss=math.nan))
    with store.reading() as session:
        (found,) = history.read(session, claimed.experiment_id)
        assert math.isnan(found.val_loss)
        assert math.isnan(found.train_loss)
        assert found.grad_norm is None
        assert found.val_accuracy == 0.5
        told = events.since(session, 0, claimed.experiment_id)[-1]
        assert told.kind == "epoch"
        assert told.data == same(found)


@pytest.mark.parametrize("epoch", [0, -1, 2, 5])
def test_an_epoch_that_would_leave_a_gap_is_refused(store: Store, epoch: int) -> None:
    claimed = start(store)
    with pytest.raises(ValueError, match="does not follow"), store.writing() as session:
        history.append_epoch(session, claimed, make_metrics(epoch))
    with store.reading() as session:
        assert history.read(session, claimed.experiment_id) == []


def test_rewinding_drops_later_epochs_and_their_bests(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        for epoch in range(1, 7):
            history.append_epoch(session, claimed, make_metrics(epoch, val_loss=1 / epoch))
    with store.writing() as session:
        history.rewind(session, claimed, 4)
    with store.reading() as session:
        assert [metrics.epoch for metrics in history.read(session, claimed.experiment_id)] == [1, 2, 3, 4]
        found = experiments.summaries(session, [claimed.experiment_id])[claimed.experiment_id]
        assert found["best"]["val_loss"] == {"value": 0.25, "epoch": 4}
        assert found["last"]["val_loss"] == 0.25
        told = events.since(session, 0, claimed.experiment_id)[-1]
        assert (told.kind, told.data["code"], told.data["data"]) == ("notice", "rewound", {"last_epoch": 4})
    with store.writing() as session:
        history.rewind(session, claimed, 4)
        history.rewind(session, claimed, 9)
        assert events.latest_id(session) == told.id, "there was nothing to drop"


def test_rewinding_to_the_start_leaves_nothing(store: Store) -> None:
    claimed = start(store)
    with store.writing() as session:
        history.append_epoch(session, claimed, make_metrics(1))
        history.rewind(session, claimed, 0)
    with store.reading() as session:
        assert history.read(session, claimed.experiment_id) == []
        assert experiments.summaries(session, [claimed.experiment_id]) == {
            claimed.experiment_id: {"best": {}, "last": {}}
        }


def test_a_second_attempt_continues_the_same_curve(store: Store) -> None:
    first = start(store)
    with store.writing() as session:
        for epoch in (1, 2, 3):
            history.append_epoch(session, first, make_metrics(epoch, val_loss=5.0))
        runs.hand_back(session, first, "killed", counts=True)
    second = claim(store, first.experiment_id)
    with store.writing() as session:
        history.rewind(session, second, 2)
        for epoch in (3, 4):
            history.append_epoch(session, second, make_metrics(epoch, val_loss=4.0))
    with store.reading() as session:
        found = history.read(session, first.experiment_id)
    assert [(metrics.epoch, metrics.val_loss) for metrics in found] == [(1, 5.0), (2, 5.0), (3, 4.0), (4, 4.0)]


@given(st.lists(appends | rewinds, max_size=14))
@hypothesis_settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_summaries_always_equal_a_recomputation_from_the_history(
    store: Store, steps: list[tuple[str, int, Any]]
) -> None:
    claimed = start(store)
    expected: list[EpochMetrics] = []
    with store.writing() as session:
        for kind, back, numbers in steps:
            if kind == "append":
                epoch = max(1, len(expected) + 1 - back)
                metrics = EpochMetrics(epoch=epoch, **numbers)
                history.append_epoch(session, claimed, metrics)
                expected = [*expected[: epoch - 1], metrics]
            else:
                last_epoch = max(0, len(expected) - back)
                history.rewind(session, claimed, last_epoch)
                expected = expected[:last_epoch]
            found = history.read(session, claimed.experiment_id)
            assert [metrics.epoch for metrics in found] == list(range(1, len(expected) + 1))
            assert [same(metrics) for metrics in found] == [same(metrics) for metrics in expected]
            assert stored_summaries(session, claimed.experiment_id) == summarise(expected)


def test_several_histories_are_read_by_one_query(store: Store) -> None:
    claims = [start(store) for _ in range(3)]
    empty = add_experiment(store)
    with store.writing() as session:
        for index, claimed in enumerate(claims):
            for epoch in range(1, 3 + index):
                history.append_epoch(session, claimed, make_metrics(epoch))
    with store.reading() as session:
        found = history.read_many(session, [3, empty, 1])
        assert list(found) == [3, empty, 1]
        assert [len(epochs) for epochs in found.values()] == [4, 0, 2]
        assert history.read(session, 12345) == []


def test_summaries_of_a_page_come_by_one_query_and_leave_out_what_never_was_finite(store: Store) -> None:
    claims = [start(store) for _ in range(2)]
    with store.writing() as session:
        history.append_epoch(session, claims[0], make_metrics(1, val_loss=math.nan, grad_norm=None))
        history.append_epoch(session, claims[1], make_metrics(1, val_loss=0.5))
        history.append_epoch(session, claims[1], make_metrics(2, val_loss=math.nan))
    with store.reading() as session:
        found = experiments.summaries(session, [1, 2, 77])
    assert "val_loss" not in found[1]["best"]
    assert found[1]["last"]["val_loss"] is None
    assert found[2]["best"]["val_loss"] == {"value": 0.5, "epoch": 1}
    assert found[2]["last"]["val_loss"] is None
    assert found[77] == {"best": {}, "last": {}}
