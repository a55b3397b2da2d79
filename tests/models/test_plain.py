"""Visiting and copying nested dictionaries and lists."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from models.plain import copy_with, finite, path_of, walk

single = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
plain = st.recursive(
    single, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
)


def test_finite_reaches_into_lists_and_objects() -> None:
    assert finite({"a": [1.0, math.nan, (math.inf, "x")], "b": {"c": -math.inf, "d": True}}) == {
        "a": [1.0, None, [None, "x"]],
        "b": {"c": None, "d": True},
    }


def at(data: Any, path: list[int | str]) -> Any:
    for key in path:
        data = data[key]
    return data


@given(plain)
def test_every_value_is_visited_once_with_the_keys_that_lead_to_it(data: Any) -> None:
    visits = list(walk(data))
    paths = [tuple(path_of(place)) for _, place, _ in visits]
    assert len(set(paths)) == len(paths)
    assert all(at(data, path_of(place)) is value and depth == len(path_of(place)) for value, place, depth in visits)
    inside = sum(len(value) for value, _, _ in visits if isinstance(value, dict | list))
    assert len(visits) == 1 + inside


def test_a_container_is_visited_before_what_is_in_it_so_that_a_walk_can_stop_there() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert next(depth for _, _, depth in walk(endless) if depth == 10_000) == 10_000


@given(plain)
def test_a_copy_shares_no_container_and_is_equal(data: Any) -> None:
    copied = copy_with(data, lambda value: value)
    assert repr(copied) == repr(data)
    ours = {id(value) for value, _, _ in walk(data) if isinstance(value, dict | list)}
    assert not ours & {id(value) for value, _, _ in walk(copied) if isinstance(value, dict | list)}


@given(plain)
def test_what_is_finite_stays_and_the_rest_is_null(data: Any) -> None:
    after = list(walk(finite(data)))
    assert all(math.isfinite(value) for value, _, _ in after if isinstance(value, float))
    assert len(after) == len(list(walk(data)))
