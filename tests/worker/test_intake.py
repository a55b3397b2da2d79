"""Of an entry on the queue, the number of an experiment is all that a worker takes."""

import json

from hypothesis import given
from hypothesis import strategies as st

from models.queue import LARGEST_ID, _experiment_of, experiment_in
from worker.intake import message_for

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.integers(1, LARGEST_ID))
def test_a_number_comes_through(number: int) -> None:
    message = message_for(number)
    assert experiment_in(message) == number
    assert _experiment_of(json.dumps(message)) == number


@given(JSON, st.sampled_from(["body", "headers", "content-type", "properties"]))
def test_no_json_makes_it_fail(value: object, key: str) -> None:
    for message in (value, {key: value}, {**message_for(7), key: value}):
        assert experiment_in(message) in (None, 7)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(entry: bytes) -> None:
    assert _experiment_of(entry) is None
