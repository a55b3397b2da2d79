"""Meters give means over the epoch, wherever it was interrupted."""

import pytest
import torch
from torch.nn import functional as F

from worker.training.batches.batch import Batch
from worker.training.meters import FLUSH_AFTER, EpochMeters

CPU = torch.device("cpu")


@pytest.mark.parametrize("num", [1, FLUSH_AFTER - 1, FLUSH_AFTER, 3 * FLUSH_AFTER + 5])
def test_meters_are_means_per_image_and_survives_a_checkpoint_anywhere(num: int) -> None:
    generator = torch.Generator().manual_seed(2)
    sizes = [1 + step % 4 for step in range(num)]
    outputs = [torch.randn(size, 3, generator=generator) for size in sizes]
    labels = [torch.randint(0, 3, (size,), generator=generator) for size in sizes]
    whole, first, second = EpochMeters(CPU), EpochMeters(CPU), EpochMeters(CPU)
    for step in range(num):
        for meters in (whole, first if step < num // 2 else second):
            if meters is second and step == num // 2:
                second.load_state_dict(first.state_dict())
            meters.update(outputs[step], Batch(torch.zeros(sizes[step]), labels[step]))
            meters.update_step(torch.tensor(float(step)))
    loss, accuracy, norm = whole.means()
    everything, every_label = torch.cat(outputs), torch.cat(labels)
    assert loss == pytest.approx(F.cross_entropy(everything, every_label).item(), abs=1e-6)
    assert accuracy == pytest.approx((everything.argmax(1) == every_label).float().mean().item())
    assert norm == pytest.approx((num - 1) / 2)
    assert second.means() == (loss, accuracy, norm)


def test_a_mixup_image_counts_both_labels_and_is_right_by_the_larger_part() -> None:
    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    labels, labels_b = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 1, 0, 2, 1, 0])
    meters = EpochMeters(CPU)
    meters.update(outputs, Batch(torch.zeros(6, 1, 1, 1), labels, labels_b, 0.3))
    expected = 0.3 * F.cross_entropy(outputs, labels) + 0.7 * F.cross_entropy(outputs, labels_b)
    assert meters.means().loss == pytest.approx(expected.item())
    assert meters.means().accuracy == pytest.approx((outputs.argmax(1) == labels_b).float().mean().item())
