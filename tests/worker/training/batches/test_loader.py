"""Batches: every image once an epoch, an order and augmentation of their own, the same whatever way they are made."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models.preprocessing import Preprocessing
from models.spec.data import AugmentationSpec
from worker.training.batches.loader import EpochBatches, InputFormat, Split, batch_edges, plain_batches

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def numbered(num: int, channels: int = 3, size: int = 8) -> Split:
    """Images whose labels are their numbers; the split leaves out every third."""
    images = torch.randint(0, 256, (num, channels, size, size), dtype=torch.uint8, generator=torch.Generator())
    indices = torch.tensor([number for number in range(num) if number % 3])
    return Split(images, torch.arange(num), indices)


def shape(**changes: Any) -> InputFormat:
    """Images of 8 pixels for a network that takes `size`, normalised by `mean` and `std`."""
    standard: dict[str, Any] = {"mean": MEAN, "std": STD, "size": 8, "antialias": True, **changes}
    preprocessing = Preprocessing(
        channels=len(standard["mean"]),
        source_size=8,
        input_size=standard["size"],
        mean=standard["mean"],
        std=standard["std"],
        class_names=("even", "odd"),
        antialias=standard["antialias"],
    )
    return InputFormat(preprocessing, torch.channels_last, CPU)


def batches(split: Split, spec: AugmentationSpec | None = None, **changes: Any) -> EpochBatches:
    standard: dict[str, Any] = {"batch_size": 16, "seed": 3, "chunk_images": 64, "prefetch": False}
    return EpochBatches(split, shape(), spec or AugmentationSpec(), **{**standard, **changes})


def stacked(found: EpochBatches, epoch: int = 1, first: int = 0) -> tuple[Tensor, Tensor]:
    parts = list(found.iterate(epoch, 8, first))
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


@pytest.mark.parametrize(
    ("num", "size", "expected"),
    [
        (10, 4, [0, 4, 8, 10]),
        (9, 4, [0, 4, 9]),  # a last batch of one image joins the one before it
        (8, 4, [0, 4, 8]),
        (5, 4, [0, 5]),
        (1, 4, [0, 1]),
        (3, 1, [0, 1, 3]),
        (3, 100, [0, 3]),
    ],
)
def test_the_last_batch_is_never_a_single_image(num: int, size: int, expected: list[int]) -> None:
    assert batch_edges(num, size) == expected


def test_an_epoch_shows_every_image_of_the_split_once() -> None:
    split = numbered(200)
    _, labels = stacked(batches(split))
    assert sorted(labels.tolist()) == split.indices.tolist()


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    split = numbered(200)
    orders = {
        (seed, epoch): stacked(batches(split, seed=seed), epoch)[1].tolist() for seed in (0, 1) for epoch in (1, 2)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    torch.manual_seed(0)
    assert stacked(batches(split, seed=1), 2)[1].tolist() == orders[1, 2]


def test_images_are_normalised_as_anyone_would() -> None:
    split = numbered(100)
    images, labels = stacked(batches(split))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    assert torch.allclose(images, (split.images[labels].float() / 255 - mean) / std, atol=1e-6)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_gray_images_are_repeated_for_a_network_of_three_channels() -> None:
    split = numbered(50, channels=1)
    images, labels = stacked(batches(split))
    assert images.shape[1] == 3
    unit = split.images[labels].float() / 255
    assert torch.allclose(images[:, 2:], (unit - MEAN[2]) / STD[2], atol=1e-6)


EVERYTHING = AugmentationSpec.model_validate_json(
    '{"hflip": 0.5, "rotation_degrees": 30, "shift_pixels": 2, "random_erase": 0.5, "cutout_pixels": 3,'
    ' "color_jitter": {"brightness": 0.5, "hue": 0.2}, "mixup_alpha": 0.5}'
)


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("first", [1, 4, 5, 8])
def test_an_epoch_can_be_entered_anywhere(first: int, prefetch: bool) -> None:
    """Chunks hold four batches: some entries fall on their edges, some inside."""
    split = numbered(200)
    whole = list(batches(split, EVERYTHING).iterate(2, 8))
    part = list(batches(split, EVERYTHING, prefetch=prefetch).iterate(2, 8, first))
    assert len(part) == len(whole) - first
    for ours, theirs in zip(part, whole[first:], strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.labels_b is not None
        assert theirs.labels_b is not None
        assert torch.equal(ours.labels_b, theirs.labels_b)
        assert ours.lam == theirs.lam


def test_augmentation_differs_from_epoch_to_epoch_and_from_chunk_to_chunk() -> None:
    split = numbered(200)
    same = Split(split.images[:1].expand(200, -1, -1, -1).contiguous(), split.labels, split.indices)
    found = batches(same, AugmentationSpec(shift_pixels=3, hflip=0.5))
    first, second = stacked(found, 1)[0], stacked(found, 2)[0]
    assert not torch.equal(first, second)
    assert not torch.equal(first[:64], first[64:128])


def test_mixed_batches_keep_within_themselves() -> None:
    split = numbered(200)
    for batch in batches(split, AugmentationSpec(mixup_alpha=1.0)).iterate(1, 8):
        assert batch.labels_b is not None
        assert sorted(batch.labels_b.tolist()) == sorted(batch.labels.tolist())
        assert 0 <= batch.lam <= 1


def test_an_error_while_preparing_ahead_reaches_the_loop() -> None:
    split = numbered(200)
    broken = Split(split.images, split.labels[:10], split.indices)
    with pytest.raises((IndexError, RuntimeError)):
        list(batches(broken, prefetch=True).iterate(1, 8))


def test_images_grow_to_the_size_that_is_asked_for() -> None:
    split = numbered(60)
    sizes = {batch.images.shape[-1] for batch in batches(split).iterate(1, 12)}
    assert sizes == {12}
    measured = next(plain_batches(split, shape(size=16), 10))
    assert measured.images.shape == (10, 3, 16, 16)
    assert measured.labels.tolist() == split.indices[:10].tolist()
