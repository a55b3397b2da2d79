"""sampler: balanced: each class as often as any other, the same again from a seed and an epoch."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.training.batches.loader import balanced_order


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_every_class_is_shown_equally_often_and_its_images_too(counts: list[int], seed: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 3, counts)))
    order = balanced_order(labels, rng(seed))
    assert len(order) == len(labels)
    shown = Counter(labels[order].tolist())
    assert set(shown) == set(labels.tolist())
    assert max(shown.values()) - min(shown.values()) <= 1
    times = Counter(order.tolist())
    for label in set(labels.tolist()):
        own = [times[place] for place in (labels == label).nonzero().flatten().tolist()]
        assert max(own) - min(own) <= 1
    assert torch.equal(order, balanced_order(labels, rng(seed)))


def test_a_large_class_shows_other_images_in_the_next_epoch() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    first, second = (set(balanced_order(labels, rng(epoch)).tolist()) for epoch in (1, 2))
    assert len(first & set(range(90))) == 50
    assert first != second


@pytest.mark.parametrize("labels", [[0], [1, 1, 1], [0, 1]])
def test_few_images_are_enough(labels: list[int]) -> None:
    assert len(balanced_order(torch.tensor(labels), rng(0))) == len(labels)
