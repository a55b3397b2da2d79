"""Labels are placed clear of curves and of each other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.drawing.labels import along_curves, place, spread
from service.drawing.plot import Plot, Scale
from service.drawing.sheet import Box, Sheet

HEIGHTS = st.lists(st.floats(-50, 150), min_size=1, max_size=12)


@given(HEIGHTS, st.floats(0.5, 40))
def test_spread_heights_keep_order_distance_and_limits(wanted: list[float], separation: float) -> None:
    placed = spread(wanted, separation, 0, 100)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gaps = np.diff([placed[index] for index in order])
    room = 100 / (len(wanted) - 1) if len(wanted) > 1 else separation
    assert (gaps >= min(separation, room) - 1e-6).all()
    assert min(placed) >= -1e-6
    assert max(placed) <= 100 + 1e-6


def test_heights_that_are_far_enough_apart_stay_where_they_are() -> None:
    assert spread([70.0, 10.0, 40.0], 5, 0, 100) == [70.0, 10.0, 40.0]
    assert spread([50.0, 50.0], 10, 0, 100) == [45.0, 55.0]


def test_a_label_keeps_off_the_curve_and_off_other_labels() -> None:
    plot = Plot(Sheet(360, 288), Box(36, 29, 324, 259))
    plot.x, plot.y = Scale(0, 10), Scale(0, 12)
    plot.curve(np.array([0, 5, 10]), np.array([0, 10, 0]), color="black", width=1)
    peak = (plot.across(5), plot.up(10))
    taken: list[Box] = []
    first = place(plot, peak, (43, 9), taken, above=True)
    second = place(plot, peak, (43, 9), taken, above=True)
    assert not first.overlaps(second)
    ink = along_curves(plot)
    assert first.count_inside(ink) == second.count_inside(ink) == 0


def test_ink_is_found_between_the_points_of_a_line_but_not_across_a_gap() -> None:
    plot = Plot(Sheet(360, 288), Box(0, 0, 360, 288))
    plot.x = Scale(0, 3)
    plot.curve(np.array([0, 1, 2, 3]), np.array([0, 0, np.nan, 0]), color="black", width=1)
    x = along_curves(plot)[:, 0]
    assert ((x > 7) & (x < 115)).sum() > 20
    assert not ((x > 125) & (x < 355)).any()
