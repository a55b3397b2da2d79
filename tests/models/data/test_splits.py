"""Splits: disjoint, complete, decided by the spec's dataset part alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.splits import split_indices
from models.spec.data import DatasetSpec

dataset_specs = st.builds(
    DatasetSpec,
    val_fraction=st.floats(0.01, 0.9),
    split_seed=st.integers(0, 2**31 - 1),
    train_limit=st.none() | st.integers(2, 5000),
    val_limit=st.none() | st.integers(1, 5000),
)


@settings(deadline=None)
@given(num_images=st.integers(2, 4000), spec=dataset_specs)
def test_no_image_is_on_both_sides_or_taken_twice(num_images: int, spec: DatasetSpec) -> None:
    train, val = split_indices(num_images, spec)
    both = np.concatenate([train, val])
    assert len(set(both.tolist())) == len(both)
    assert both.min() >= 0
    assert both.max() < num_images
    assert len(train) >= 1
    assert len(val) >= 1
    assert train.dtype == val.dtype == np.int64


@settings(deadline=None)
@given(num_images=st.integers(2, 4000), spec=dataset_specs)
def test_without_limits_every_image_is_on_one_side(num_images: int, spec: DatasetSpec) -> None:
    train, val = split_indices(num_images, spec.model_copy(update={"train_limit": None, "val_limit": None}))
    assert sorted([*train, *val]) == list(range(num_images))
    assert abs(len(val) - spec.val_fraction * num_images) <= 1


@settings(deadline=None)
@given(num_images=st.integers(2, 4000), spec=dataset_specs)
def test_a_limit_shortens_a_split_and_moves_nothing(num_images: int, spec: DatasetSpec) -> None:
    train, val = split_indices(num_images, spec)
    whole_train, whole_val = split_indices(
        num_images, DatasetSpec(val_fraction=spec.val_fraction, split_seed=spec.split_seed)
    )
    assert train.tolist() == whole_train[: spec.train_limit].tolist()
    assert val.tolist() == whole_val[: spec.val_limit].tolist()


def test_the_report_split_is_forty_to_ten_thousand_and_always_the_same() -> None:
    train, val = split_indices(50_000, DatasetSpec())
    assert (len(train), len(val)) == (40_000, 10_000)
    # these indices are part of what a stored spec means: they may not change with a library's version
    assert train[:6].tolist() == [743, 23825, 11227, 23871, 45801, 21337]
    assert val[:6].tolist() == [25556, 20554, 16026, 47310, 38162, 6037]


def test_another_seed_is_another_split() -> None:
    first, _ = split_indices(1000, DatasetSpec(split_seed=1))
    second, _ = split_indices(1000, DatasetSpec(split_seed=2))
    assert first.tolist() != second.tolist()


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="1 images"):
        split_indices(1, DatasetSpec())
