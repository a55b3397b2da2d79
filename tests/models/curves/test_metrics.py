import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.curves.metrics import MAXIMISED, SERIES, EpochMetrics, summarise, thin

number = st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([math.nan, math.inf, -math.inf])


@st.composite
def histories(draw: st.DrawFn, max_size: int = 60) -> list[EpochMetrics]:
    rows = draw(st.lists(st.lists(number, min_size=len(SERIES), max_size=len(SERIES)), max_size=max_size))
    unmeasured = draw(st.booleans())
    history = [EpochMetrics(epoch, *row) for epoch, row in enumerate(rows, start=1)]
    return [replace(metrics, grad_norm=None) for metrics in history] if unmeasured else history


def usable(history: list[EpochMetrics], series: str) -> list[tuple[int, float]]:
    pairs = [(metrics.epoch, getattr(metrics, series)) for metrics in history]
    return [(epoch, value) for epoch, value in pairs if value is not None and math.isfinite(value)]


def test_an_epoch_as_json_has_null_for_what_is_not_finite() -> None:
    metrics = EpochMetrics(3, math.nan, 0.1, math.inf, 0.2, 0.01, None, 2.0, 500.0, 100.0)
    data = metrics.as_json()
    assert data["epoch"] == 3
    assert data["train_loss"] is None
    assert data["val_loss"] is None
    assert data["val_accuracy"] == 0.2
    json.dumps(data, allow_nan=False)


@settings(deadline=None)
@given(histories())
def test_a_summary_names_the_first_best_finite_value_and_the_last(history: list[EpochMetrics]) -> None:
    summaries = summarise(history)
    assert set(summaries) == (set(SERIES) if history else set())
    for series, summary in summaries.items():
        values = usable(history, series)
        best = max if series in MAXIMISED else min
        if values:
            assert summary.best == best(value for _, value in values)
            assert summary.best_epoch == next(epoch for epoch, value in values if value == summary.best)
        else:
            assert (summary.best, summary.best_epoch) == (None, None)
        last = getattr(history[-1], series)
        assert summary.last == (last if last is not None and math.isfinite(last) else None)


@settings(deadline=None)
@given(histories(), st.integers(0, 40), st.sets(st.integers(1, 60), max_size=3))
def test_a_thinned_history_keeps_every_point_that_matters(
    history: list[EpochMetrics], points: int, keep: set[int]
) -> None:
    thinned = thin(history, points, keep)
    epochs = [metrics.epoch for metrics in thinned]
    assert epochs == sorted(set(epochs))
    assert all(metrics is history[metrics.epoch - 1] for metrics in thinned)
    if not history:
        return
    assert {1, len(history)} <= set(epochs)
    assert keep & set(range(1, len(history) + 1)) <= set(epochs)
    for series in SERIES:
        values = [value for _, value in usable(history, series)]
        if values:
            kept = [value for _, value in usable(thinned, series)]
            assert (min(kept), max(kept)) == (min(values), max(values))
        everything = [(metrics.epoch, getattr(metrics, series)) for metrics in history]
        broken = [epoch for epoch, value in everything if value is not None and not math.isfinite(value)]
        assert {*broken[:1], *broken[-1:]} <= set(epochs)


@pytest.mark.parametrize("length", [201, 1000, 10_000])
def test_a_long_history_is_thinned_to_the_number_of_points_asked_for(length: int) -> None:
    history = [
        EpochMetrics(e, 2 / e, 0.5, 2 / e + math.sin(e) / 20, 0.4, 0.1, 1.0, 2.0, 900.0, 80.0)
        for e in range(1, length + 1)
    ]
    thinned = thin(history, 200)
    assert 190 <= len(thinned) <= 200
    gaps = [after.epoch - before.epoch for before, after in pairwise(thinned)]
    assert max(gaps) <= 3 * length / 190, "no part of the curve is left out"


def test_a_short_history_is_not_thinned() -> None:
    history = [EpochMetrics(e, 1.0, 0.5, 1.0, 0.5, 0.1, None, 1.0, 1.0, 1.0) for e in range(1, 6)]
    assert thin(history, 200) == history
    assert thin([], 10) == []


@pytest.mark.parametrize("series", ["val_accuracy", "val_loss"])
def test_a_thinned_history_keeps_single_dips_and_spikes_of_both_validation_curves(series: str) -> None:
    dips = [333, 1700, 2650, 4001]
    history = [
        EpochMetrics(e, 1.0, 0.5, 1 + math.sin(e) / 50, 0.6 + math.sin(e) / 100, 0.1, 1.0, 1.0, 900.0, 80.0)
        for e in range(1, 5001)
    ]
    for number, epoch in enumerate(dips):
        value = 0.3 + 0.02 * number if series == "val_accuracy" else 1.5 + 0.1 * number
        history[epoch - 1] = replace(history[epoch - 1], **{series: value})
    assert set(dips) <= {metrics.epoch for metrics in thin(history, 200)}


def test_a_thinned_history_keeps_where_non_finite_stretches_begin_and_end() -> None:
    history = [EpochMetrics(e, 1.0, 0.5, 1.0, 0.6, 0.1, 1.0, 1.0, 900.0, 80.0) for e in range(1, 1001)]
    edges = {100, 140, 500, 501, 990, 1000}
    for epoch in [*range(100, 141), 500, 501, *range(990, 1001)]:
        history[epoch - 1] = replace(history[epoch - 1], val_loss=math.nan, train_loss=math.inf)
    assert edges <= {metrics.epoch for metrics in thin(history, 100)}


def test_of_equal_values_the_first_is_the_best_for_every_series() -> None:
    history = [EpochMetrics(e, 1.0, 0.5, 3.0 - e, 0.6, 0.1, 1.0, 1.0, 900.0, 80.0) for e in range(1, 4)]
    best = {series: summary.best_epoch for series, summary in summarise(history).items()}
    assert (best["val_accuracy"], best["val_loss"], best["train_loss"]) == (1, 3, 1)
