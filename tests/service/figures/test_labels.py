"""Labels find a place of their own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from service.figures.labels import Box, along_lines, place, spread

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
    figure = Figure(figsize=(5, 4), dpi=100)
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    ax.plot([0, 5, 10], [0, 10, 0])
    ax.set_xlim(0, 10)
    ax.set_ylim(0, 12)
    taken: list[Box] = []
    first = place(ax, (5, 10), (60, 12), taken, above=True)
    second = place(ax, (5, 10), (60, 12), taken, above=True)
    assert not first.overlaps(second)
    ink = along_lines(ax)
    assert first.count_inside(ink) == second.count_inside(ink) == 0


def test_ink_is_found_between_the_points_of_a_line_but_not_across_a_gap() -> None:
    ax = Figure(figsize=(5, 4), dpi=100).add_axes((0, 0, 1, 1))
    ax.plot([0, 1, 2, 3], [0, 0, np.nan, 0])
    ax.set_xlim(0, 3)
    x = along_lines(ax)[:, 0]
    assert ((x > 10) & (x < 160)).sum() > 20
    assert not ((x > 170) & (x < 490)).any()
