"""Splits: disjoint, complete, decided by the spec's dataset part alone."""

from collections import Counter

import numpy as np
import numpy.typing as npt
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


Labels = npt.NDArray[np.int64]


def labels_of(num_images: int, classes: int = 7) -> Labels:
    """Classes of different sizes, the smallest of one image in a hundred or so."""
    return np.asarray(np.random.default_rng(num_images).geometric(0.4, num_images) % classes, dtype=np.int64)


@settings(deadline=None)
@given(num_images=st.integers(2, 4000), spec=dataset_specs, stratified=st.booleans())
def test_no_image_is_on_both_sides_or_taken_twice(num_images: int, spec: DatasetSpec, stratified: bool) -> None:
    train, val = split_indices(labels_of(num_images), spec, stratified=stratified)
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
    train, val = split_indices(labels_of(num_images), spec.model_copy(update={"train_limit": None, "val_limit": None}))
    assert sorted([*train, *val]) == list(range(num_images))
    assert abs(len(val) - spec.val_fraction * num_images) <= 1


@settings(deadline=None)
@given(num_images=st.integers(2, 4000), spec=dataset_specs)
def test_the_first_rules_take_the_first_images_of_a_split(num_images: int, spec: DatasetSpec) -> None:
    train, val = split_indices(labels_of(num_images), spec, stratified=False)
    whole_train, whole_val = split_indices(
        labels_of(num_images), DatasetSpec(val_fraction=spec.val_fraction, split_seed=spec.split_seed)
    )
    assert train.tolist() == whole_train[: spec.train_limit].tolist()
    assert val.tolist() == whole_val[: spec.val_limit].tolist()


@settings(deadline=None)
@given(num_images=st.integers(2, 3000), limit=st.integers(2, 3000), seed=st.integers(0, 99), classes=st.integers(1, 30))
def test_a_limit_keeps_the_classes_shares(num_images: int, limit: int, seed: int, classes: int) -> None:
    labels = labels_of(num_images, classes)
    whole = DatasetSpec(val_fraction=0.5, split_seed=seed)
    limited = whole.model_copy(update={"train_limit": limit, "val_limit": limit})
    for all_of_it, some in zip(split_indices(labels, whole), split_indices(labels, limited), strict=True):
        places = {int(image): place for place, image in enumerate(all_of_it)}
        assert len(some) == min(limit, len(all_of_it))
        assert [places[int(image)] for image in some] == sorted(places[int(image)] for image in some)
        available, taken = Counter(labels[all_of_it].tolist()), Counter(labels[some].tolist())
        assert len(taken) == min(len(available), limit)
        rest = max(0, len(some) - len(available))
        for label, count in available.items():  # no class is short of its share by more than one image, but for
            share = count / len(all_of_it) * len(some)  # those that the smallest classes get before
            assert taken[label] >= min(count, int(count / len(all_of_it) * rest))
            assert taken[label] <= max(1, share + len(available) / 2)


@settings(deadline=None)
@given(num_images=st.integers(10, 3000), seed=st.integers(0, 99), data=st.data())
def test_a_larger_limit_takes_what_a_smaller_one_does(num_images: int, seed: int, data: st.DataObject) -> None:
    labels = labels_of(num_images)
    smaller = data.draw(st.integers(2, num_images))
    larger = data.draw(st.integers(smaller, num_images + 5))
    few, _ = split_indices(labels, DatasetSpec(split_seed=seed, train_limit=smaller))
    many, _ = split_indices(labels, DatasetSpec(split_seed=seed, train_limit=larger))
    assert set(few.tolist()) <= set(many.tolist())


@pytest.mark.parametrize("limit", [10, 20, 50, 1000])
def test_classes_of_one_size_are_shared_out_evenly(limit: int) -> None:
    labels = np.repeat(np.arange(10), 500)
    for seed in range(40):
        train, val = split_indices(labels, DatasetSpec(split_seed=seed, train_limit=limit, val_limit=limit))
        whole, _ = split_indices(labels, DatasetSpec(split_seed=seed))  # its classes differ by a few images
        taken, available = Counter(labels[train].tolist()), Counter(labels[whole].tolist())
        assert all(abs(taken[label] - count / len(whole) * limit) <= 1 for label, count in available.items())
        assert len(Counter(labels[train].tolist())) == len(Counter(labels[val].tolist())) == 10
        again, _ = split_indices(labels, DatasetSpec(split_seed=seed, train_limit=limit, val_limit=limit))
        assert again.tolist() == train.tolist()


def test_the_report_split_is_forty_to_ten_thousand_and_always_the_same() -> None:
    train, val = split_indices(np.arange(50_000) % 10, DatasetSpec())
    assert (len(train), len(val)) == (40_000, 10_000)
    # these indices are part of what a stored spec means: they may not change with a library's version
    assert train[:6].tolist() == [743, 23825, 11227, 23871, 45801, 21337]
    assert val[:6].tolist() == [25556, 20554, 16026, 47310, 38162, 6037]


def test_another_seed_is_another_split() -> None:
    first, _ = split_indices(labels_of(1000), DatasetSpec(split_seed=1))
    second, _ = split_indices(labels_of(1000), DatasetSpec(split_seed=2))
    assert first.tolist() != second.tolist()


@settings(deadline=None)
@given(num_images=st.integers(4, 3000), seed=st.integers(0, 99), classes=st.integers(1, 30), share=st.floats(0.05, 0.8))
def test_a_stratified_split_keeps_the_classes_shares(num_images: int, seed: int, classes: int, share: float) -> None:
    labels = labels_of(num_images, classes)
    spec = DatasetSpec(split="stratified", val_fraction=share, split_seed=seed)
    train, val = split_indices(labels, spec)
    assert sorted([*train, *val]) == list(range(num_images))
    counts, held = Counter(labels.tolist()), Counter(labels[val].tolist())
    free = num_images - len(counts)
    assert len(val) == min(round(share * num_images) or 1, free) or not free
    for label, count in counts.items():
        assert not free or held[label] < count  # every class is trained on
        assert held[label] >= int(share * count) - len(counts) / 2 - 1
        assert held[label] <= max(1, share * count + len(counts) / 2 + 1)
        if len(val) >= len(counts) and count > 1:
            assert held[label] >= 1
    assert [part.tolist() for part in split_indices(labels, spec)] == [train.tolist(), val.tolist()]


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=60), share=st.floats(0.05, 0.9), seed=st.integers(0, 99))
def test_no_group_straddles_the_two_sides(sizes: list[int], share: float, seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 7 - 3, sizes))
    labels = np.arange(len(groups)) % 2
    spec = DatasetSpec(val_fraction=share, split_seed=seed)
    if len(groups) < 2:
        return
    train, val = split_indices(labels, spec, groups=groups)  # groups are kept without being asked
    assert sorted([*train, *val]) == list(range(len(groups)))
    assert not set(groups[train].tolist()) & set(groups[val].tolist())
    assert len(train) >= 1
    wanted = min(max(1, round(share * len(groups))), len(groups) - 1)
    assert len(val) <= max(wanted, min(sizes))
    assert len(val) >= min(min(sizes), wanted)
    assert len(val) > wanted - max(sizes)  # any group that was left out would not have fitted
    random = split_indices(labels, spec.model_copy(update={"split": "random"}), groups=groups)
    assert [part.tolist() for part in random] == [part.tolist() for part in split_indices(labels, spec)]


def test_the_validation_images_that_a_dataset_names_are_kept_whatever_the_seed() -> None:
    mask = np.zeros(100, dtype=bool)
    mask[10:35] = True
    for seed in range(5):
        train, val = split_indices(labels_of(100), DatasetSpec(split_seed=seed, val_fraction=0.5), validation=mask)
        assert sorted(val) == list(range(10, 35))
        assert sorted(train) == [*range(10), *range(35, 100)]
    groups = np.arange(100) // 2
    _, val = split_indices(labels_of(100), DatasetSpec(), validation=mask, groups=groups)
    assert sorted(val) == list(range(10, 35))
    _, val = split_indices(labels_of(100), DatasetSpec(split="grouped"), validation=mask, groups=groups)
    assert sorted(val) != list(range(10, 35))


def test_a_split_that_would_leave_a_side_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="one group"):
        split_indices(labels_of(10), DatasetSpec(split="grouped"), groups=np.zeros(10, dtype=np.int64))
    with pytest.raises(ValueError, match="would leave 10 images"):
        split_indices(labels_of(10), DatasetSpec(split="given"), validation=np.zeros(10, dtype=bool))


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="1 images"):
        split_indices(np.zeros(1, dtype=np.int64), DatasetSpec())
