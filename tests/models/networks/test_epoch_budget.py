"""Which epochs' weights are kept: the newest densely, older ones thinner, and never more than there is room for."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.networks.epoch_budget import EPOCHS_BYTES, capacity, epoch_bytes, epochs_bytes, kept_epochs


@given(st.integers(1, 300), st.integers(4, 64))
def test_as_many_as_fit_are_kept_with_the_first_and_the_last(last: int, room: int) -> None:
    kept = kept_epochs(last, room)
    assert len(kept) == min(last, room)
    assert (kept[0], kept[-1]) == (1, last)
    assert list(kept) == sorted(set(kept))


def test_an_epoch_that_was_dropped_never_comes_back() -> None:
    for last in range(1, 200):
        assert set(kept_epochs(last + 1, 8)) <= {*kept_epochs(last, 8), last + 1}


def test_gaps_grow_with_age() -> None:
    kept = kept_epochs(1000, 20)
    gaps = [later - earlier for earlier, later in itertools.pairwise(kept)]
    assert gaps[-1] == 1
    assert max(gaps[-5:]) < min(gaps[1:4])
    assert max(gap / (1000 - start) for gap, start in zip(gaps, kept, strict=False) if start < 990) < 0.8


@pytest.mark.parametrize(("num_parameters", "kept"), [(62_000, 64), (740_000, 22), (4_000_000, 4), (11_200_000, 0)])
def test_large_networks_keep_fewer_or_none(num_parameters: int, kept: int) -> None:
    assert capacity(4 * num_parameters) == kept
    assert epochs_bytes(4 * num_parameters, 1000) == kept * epoch_bytes(4 * num_parameters) <= EPOCHS_BYTES
    assert epochs_bytes(4 * num_parameters, 2) <= 2 * epoch_bytes(4 * num_parameters)
