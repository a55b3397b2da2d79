"""The criterion is torch's cross-entropy with the smoothing, class weights and mixup labels of the spec."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import SpecError
from tests.worker.training.tiny import spec
from worker.training.batches.batch import Batch
from worker.training.batches.loader import Split
from worker.training.criterion import Criterion

CPU = torch.device("cpu")


def split(labels: list[int]) -> Split:
    count = len(labels)
    return Split(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.tensor(labels), torch.arange(count))


def criterion(**changes: Any) -> Criterion:
    return Criterion(spec(**changes), split([0, 0, 0, 1]), 3, CPU)


def batch(num: int = 6, labels_b: Tensor | None = None, lam: float = 1.0) -> tuple[Tensor, Batch]:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(num, 3, generator=generator)
    labels = torch.randint(0, 3, (num,), generator=generator)
    return outputs, Batch(torch.zeros(num, 1, 1, 1), labels, labels_b, lam)


def test_the_criterion_is_cross_entropy_with_what_is_asked_for() -> None:
    outputs, plain = batch()
    assert torch.equal(criterion()(outputs, plain), F.cross_entropy(outputs, plain.labels))
    smooth = criterion(label_smoothing=0.2)(outputs, plain)
    assert torch.equal(smooth, F.cross_entropy(outputs, plain.labels, label_smoothing=0.2))


def test_balanced_weights_are_inverse_frequencies_and_absent_classes_weigh_nothing() -> None:
    weights = criterion(class_weights="balanced").class_weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0.0])


def test_given_weights_are_taken_and_counted() -> None:
    weights = criterion(class_weights=[1.0, 2.0, 3.0]).class_weights
    assert weights is not None
    assert weights.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(SpecError, match="2 weights for 3 classes"):
        criterion(class_weights=[1.0, 2.0])


def test_mixed_labels_share_the_loss() -> None:
    other = torch.tensor([2, 1, 0, 2, 1, 0])
    outputs, mixed = batch(labels_b=other, lam=0.3)
    expected = 0.3 * F.cross_entropy(outputs, mixed.labels) + 0.7 * F.cross_entropy(outputs, other)
    assert criterion()(outputs, mixed) == pytest.approx(expected.item())
