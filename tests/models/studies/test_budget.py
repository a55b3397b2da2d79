"""Fitting a study into a time: rows are shortened alike, the plan fits, and what was shortened is said."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec.parse import parse_spec
from models.studies.budget import (
    FEWEST_IMAGES,
    Length,
    Work,
    by_urgency,
    describe_shortening,
    first_fit,
    fit,
    full_length,
    refit,
    seconds_of,
    shorten,
    shortened,
    total_seconds,
)

SMALL = Work("small", 30, 40_000, 10_000, 0, 0.0003, 0.0001, 3.0)
LARGE = Work("large", 50, 40_000, 10_000, 0, 0.006, 0.002, 4.0)

works = st.lists(
    st.builds(
        Work,
        key=st.just("row"),
        epochs=st.integers(1, 200),
        train_images=st.integers(100, 100_000),
        val_images=st.integers(100, 20_000),
        test_images=st.sampled_from([0, 10_000]),
        train_seconds=st.floats(1e-5, 0.02),
        val_seconds=st.floats(1e-6, 0.005),
        start_seconds=st.floats(0, 10),
        share=st.floats(0.1, 10),
        min_epochs=st.integers(1, 300),
        runs=st.integers(0, 3),
    ),
    min_size=1,
    max_size=8,
)


@given(rows=works, seconds=st.floats(10, 1e6), parallel=st.integers(1, 4))
def test_what_is_planned_fits_the_time_or_is_refused(rows: list[Work], seconds: float, parallel: int) -> None:
    scale = fit(rows, seconds, parallel=parallel)
    if scale:
        assert total_seconds(rows, scale, parallel) <= seconds
    else:
        shortest = [replace(row, share=1.0) for row in rows]
        assert total_seconds(shortest, 1e-12, parallel) > seconds


@given(rows=works, scale=st.floats(1e-6, 10))
def test_no_row_grows_and_every_row_trains(rows: list[Work], scale: float) -> None:
    for row in rows:
        length = shortened(row, scale)
        assert 1 <= length.epochs <= row.epochs
        assert min(FEWEST_IMAGES, row.train_images) <= length.train_images <= row.train_images
        assert 1 <= length.val_images <= row.val_images


def test_most_of_the_time_is_used() -> None:
    scale = fit([SMALL, LARGE], 1800)
    assert total_seconds([SMALL, LARGE], scale) == pytest.approx(1800, rel=0.08)


def test_rows_of_equal_length_are_shortened_alike_whatever_they_cost() -> None:
    scale = fit([SMALL, replace(LARGE, epochs=30)], 600)
    assert shortened(SMALL, scale) == shortened(replace(LARGE, epochs=30), scale)


def test_all_rows_are_validated_on_the_same_images() -> None:
    scale = fit([SMALL, LARGE], 600)
    assert shortened(SMALL, scale).val_images == shortened(replace(LARGE, share=3), scale).val_images
    assert shortened(SMALL, scale / 3, 4_000).val_images == 4_000


def test_a_row_with_a_larger_share_keeps_more() -> None:
    scale = fit([SMALL, LARGE], 600)
    more = shortened(replace(LARGE, share=4), scale)
    assert more.epochs * more.train_images > 3 * shortened(LARGE, scale).epochs * shortened(LARGE, scale).train_images


def test_a_row_keeps_its_fewest_epochs_and_loses_images_in_their_place() -> None:
    row, other = replace(LARGE, min_epochs=20), LARGE
    scale = fit([SMALL, LARGE], 600)
    kept, free = shortened(row, scale), shortened(other, scale)
    assert kept.epochs == 20 > free.epochs
    assert kept.train_images < free.train_images
    assert kept.epochs * kept.train_images == pytest.approx(free.epochs * free.train_images, rel=0.1)


def test_a_thousand_images_are_left_before_epochs_are_kept() -> None:
    length = shortened(replace(LARGE, min_epochs=50), 0.005)
    assert length.train_images == FEWEST_IMAGES
    assert length.epochs < 50


def test_a_time_in_which_everything_fits_shortens_nothing() -> None:
    scale = fit([SMALL], 10_000)
    assert shortened(SMALL, scale) == full_length(SMALL)


def test_a_plan_that_is_nearly_right_is_kept_and_one_that_ends_too_late_is_mended() -> None:
    scale = fit([LARGE], 1000)
    assert refit([LARGE], 960, scale, scale) == scale
    assert refit([LARGE], 5000, scale, scale) == scale  # rows that are alike can be compared: time left over buys seeds
    slower = replace(LARGE, train_seconds=2 * LARGE.train_seconds)
    mended = refit([slower], 1000, scale, scale)
    assert seconds_of(slower, shortened(slower, mended)) <= 1000


def test_a_plan_that_was_cut_while_the_machine_was_slow_grows_again_up_to_the_first_one() -> None:
    first = fit([LARGE], 1000)
    slower = replace(LARGE, train_seconds=4 * LARGE.train_seconds)
    cut = refit([slower], 1000, first, first)
    assert cut < first / 2
    assert refit([LARGE], 1000, cut, first) == pytest.approx(first, rel=0.01)
    assert refit([LARGE], 9000, cut, first) == first
    a_little = replace(LARGE, train_seconds=3.5 * LARGE.train_seconds)
    assert refit([a_little], 1000, cut, first) == cut  # rows that differ by so little are alike


def test_the_first_plan_leaves_a_reserve_where_the_rows_are_not_as_short_as_they_can_be() -> None:
    assert total_seconds([LARGE], first_fit([LARGE], 1000)) == pytest.approx(900, rel=0.02)
    assert total_seconds([LARGE], first_fit([LARGE], 1000, spent=100)) == pytest.approx(800, rel=0.02)
    least = total_seconds([LARGE], 1e-9)
    assert first_fit([LARGE], least / 0.95) == pytest.approx(fit([LARGE], least / 0.95 * 0.97))
    assert first_fit([LARGE], least / 2) == 0.0


def test_rows_begin_as_they_are_written_but_one_that_takes_most_of_the_time_that_is_left_begins_first() -> None:
    lasting = [("a", 10.0), ("long", 80.0), ("b", 20.0), ("longer", 90.0)]
    assert by_urgency(lasting, 1000) == ["a", "long", "b", "longer"]
    assert by_urgency(lasting, 100) == ["longer", "long", "a", "b"]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ({"name": "exponential", "gamma": 0.95}, {"gamma": pytest.approx(0.95**5)}),
        ({"name": "step", "step_size": 10}, {"step_size": 2}),
        ({"name": "multistep", "milestones": [10, 20]}, {"milestones": (2, 4)}),
        ({"name": "cosine", "warmup_epochs": 5.0}, {"warmup_epochs": 1.0}),
    ],
)
def test_a_schedule_keeps_its_shape_in_fewer_epochs(schedule: dict[str, object], wanted: dict[str, object]) -> None:
    spec = parse_spec({"model": "baseline", "epochs": 30, "lr_scheduler": schedule})
    short = shorten(spec, Length(6, 10_000, 2_000), Length(30, 40_000, 10_000))
    assert short.epochs == 6
    assert short.dataset.train_limit == 10_000
    assert short.dataset.val_limit == 2_000
    assert {name: getattr(short.lr_scheduler, name) for name in wanted} == wanted


def test_what_was_shortened_is_said_with_what_it_would_take_in_full() -> None:
    spec = parse_spec({"model": "baseline", "epochs": 30})
    full = Length(30, 40_000, 10_000)
    assert describe_shortening(spec, full, full, 400) == ""
    said = describe_shortening(spec, Length(6, 10_000, 10_000), full, 400)
    assert said == "6 of 30 epochs, 10,000 of 40,000 training images. In full it takes about 6 min 40 s here."
