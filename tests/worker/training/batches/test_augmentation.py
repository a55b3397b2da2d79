"""Each batched augmentation against torchvision's per-image transform of that name."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.spec.data import AugmentationSpec, ColorJitterSpec
from models.torchvision_compat import torchvision
from tests.worker.training.tiny import images
from worker.training.batches import color
from worker.training.batches.augmentation import erase, jitter_colors, mixup, move_pixels

transforms, functional = torchvision.transforms, torchvision.transforms.functional

DRAWS = 2000
SIZE = 16


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.fixture
def image() -> Tensor:
    """One real image, uint8 (3, 16, 16)."""
    return torch.from_numpy(images().train_images[4])


def ours_moved(image: Tensor, rng: torch.Generator, **wanted: float) -> Tensor:
    return move_pixels(image.expand(DRAWS, -1, -1, -1), AugmentationSpec(**wanted), rng).float()


def theirs(image: Tensor, transform: Callable[[Image.Image], Image.Image]) -> Tensor:
    """The transform applied DRAWS times to one PIL image."""
    torch.manual_seed(11)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    return (
        torch.stack([torch.from_numpy(np.array(transform(picture))) for _ in range(DRAWS)]).permute(0, 3, 1, 2).float()
    )


def assert_same_distribution(ours: Tensor, theirs: Tensor) -> None:
    """Every pixel's mean and variance agree as those of two samples of one distribution do, and so do whole images.

    One draw changes all pixels together, so their z-scores are far from independent: a pixel's exceeds 4.5 once in
    100,000 samples. The largest gap between the cumulative distributions of two samples of 2,000 exceeds 0.075 once in
    40,000 (Kolmogorov and Smirnov).
    """
    assert ours.shape[1:] == theirs.shape[1:]
    for moment in (lambda values: values, lambda values: (values - values.mean(0)) ** 2):
        one, two = moment(ours.double()), moment(theirs.double())
        error = ((one.var(0) + two.var(0)) / DRAWS).sqrt().clamp_min(1e-3)
        assert ((one.mean(0) - two.mean(0)) / error).abs().max() < 4.5
    for summary in (lambda values: values.mean((1, 2, 3)), lambda values: values[:, :, :8, :8].mean((1, 2, 3))):
        one, two = (summary(values.double()).mul(1e4).round().sort().values for values in (ours, theirs))
        places = torch.cat((one, two)).unique()
        gap = torch.searchsorted(one, places, right=True) - torch.searchsorted(two, places, right=True)
        assert gap.abs().max() / DRAWS < 0.075


@pytest.mark.parametrize(
    ("wanted", "transform"),
    [
        ({"hflip": 0.3}, transforms.RandomHorizontalFlip(0.3)),
        ({"vflip": 0.7}, transforms.RandomVerticalFlip(0.7)),
        ({"rotation_degrees": 15.0}, transforms.RandomRotation(15)),
        ({"rotation_degrees": 180.0}, transforms.RandomRotation(180)),
        ({"crop_padding": 3}, transforms.RandomCrop(SIZE, padding=3)),
        ({"shift_pixels": 3}, transforms.RandomCrop(SIZE, padding=3, padding_mode="reflect")),
        (
            {"hflip": 0.5, "vflip": 0.5, "rotation_degrees": 15.0},
            transforms.Compose(
                [
                    transforms.RandomHorizontalFlip(),
                    transforms.RandomVerticalFlip(),
                    transforms.RandomRotation(15),
                ]
            ),
        ),
        (
            {"crop_padding": 2, "hflip": 0.5, "rotation_degrees": 30.0},
            transforms.Compose(
                [
                    transforms.RandomCrop(SIZE, padding=2),
                    transforms.RandomHorizontalFlip(),
                    transforms.RandomRotation(30),
                ]
            ),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_moving_pixels_is_distributed_as_torchvisions(
    image: Tensor, rng: torch.Generator, wanted: dict[str, float], transform: Callable[[Image.Image], Image.Image]
) -> None:
    assert_same_distribution(ours_moved(image, rng, **wanted), theirs(image, transform))


def test_a_rotated_image_is_the_one_that_pil_makes(image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel by pixel at many angles; PIL decides some ties between two pixels by fixed-point arithmetic."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    angles = torch.linspace(-180, 180, 101)[1:-1]
    draws = ((angles + 180) / 360).view(-1, 1, 1)
    monkeypatch.setattr(torch, "rand", lambda *shape, **where: draws.clone())
    ours = move_pixels(
        image.expand(len(angles), -1, -1, -1), AugmentationSpec(rotation_degrees=180.0), torch.Generator()
    )
    monkeypatch.undo()
    rotated = [np.array(picture.rotate(float(angle))) for angle in angles]
    same = (ours == torch.from_numpy(np.stack(rotated)).permute(0, 3, 1, 2)).float().mean((1, 2, 3))
    assert same.mean() > 0.99
    assert same.min() > 0.9


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("change", ["brightness", "contrast", "saturation"])
def test_colour_changes_are_torchvisions(change: str, factor: float) -> None:
    batch = torch.from_numpy(images().train_images[:20]).float() / 255
    amount = torch.full((20, 1, 1, 1), factor)
    ours = getattr(color, f"adjust_{change}")(batch.clone(), amount)
    theirs = torch.stack([getattr(functional, f"adjust_{change}")(each, factor) for each in batch])
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.13, 0.5])
def test_the_turned_colour_wheel_is_torchvisions(shift: float) -> None:
    batch = torch.from_numpy(images().train_images[:20]).float() / 255
    batch[0] = 0.5  # grey, black and pure colours are where the wheel has corners
    batch[1] = 0.0
    batch[2], batch[2, 0] = 0.0, 1.0
    ours = color.adjust_hue(batch.clone(), torch.full((20, 1, 1, 1), shift))
    theirs = torch.stack([functional.adjust_hue(each, shift) for each in batch])
    assert torch.allclose(ours, theirs, atol=2e-6)


CHANGES = ("brightness", "contrast", "saturation", "hue")
"""The order in which torchvision's ColorJitter numbers its changes."""


def theirs_jittered(unit: Tensor, jitter: transforms.ColorJitter) -> Tensor:
    """What torchvision's jitter makes of an image in DRAWS draws: its factors and orders, all of one order at once."""
    torch.manual_seed(11)
    drawn = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(DRAWS)]
    jittered = torch.empty(DRAWS, *unit.shape)
    by_order: dict[tuple[int, ...], list[int]] = {}
    for number, (order, *_) in enumerate(drawn):
        by_order.setdefault(tuple(order.tolist()), []).append(number)
    for order, numbers in by_order.items():
        batch = unit.repeat(len(numbers), 1, 1, 1)
        for place in order:
            factors = [drawn[number][1 + place] for number in numbers]
            if None not in factors:
                batch = getattr(color, f"adjust_{CHANGES[place]}")(batch, torch.tensor(factors).view(-1, 1, 1, 1))
        jittered[numbers] = batch
    return jittered


@pytest.mark.parametrize(
    "wanted",
    [
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.9},
        {"hue": 0.3},
        {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2},
    ],
    ids=lambda value: "-".join(value),
)
def test_colour_jitter_is_distributed_as_torchvisions(
    image: Tensor, rng: torch.Generator, wanted: dict[str, float]
) -> None:
    spec = AugmentationSpec(color_jitter=ColorJitterSpec(**wanted))
    unit = image.float() / 255
    ours = jitter_colors(unit.repeat(DRAWS, 1, 1, 1), spec, rng)
    jitter = transforms.ColorJitter(**wanted)
    theirs = theirs_jittered(unit, jitter)
    torch.manual_seed(11)
    few = torch.stack([jitter(unit) for _ in range(40)])
    assert torch.allclose(theirs[: len(few)], few, atol=1e-5)
    assert_same_distribution(ours * 255, theirs * 255)


def test_gray_images_keep_their_one_channel(rng: torch.Generator) -> None:
    jitter = ColorJitterSpec(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    gray = torch.rand(8, 1, SIZE, SIZE)
    assert jitter_colors(gray.clone(), AugmentationSpec(color_jitter=jitter), rng).shape == gray.shape


def test_random_erasing_is_distributed_as_torchvisions(rng: torch.Generator) -> None:
    ones = torch.ones(3, SIZE, SIZE)
    ours = erase(ones.repeat(DRAWS, 1, 1, 1), AugmentationSpec(random_erase=0.6), rng)
    torch.manual_seed(11)
    erasing = transforms.RandomErasing(p=0.6)
    theirs = torch.stack([erasing(ones) for _ in range(DRAWS)])
    assert_same_distribution(ours, theirs)


def test_cutout_clears_one_square_centred_anywhere(rng: torch.Generator) -> None:
    cut = erase(torch.ones(DRAWS, 3, SIZE, SIZE), AugmentationSpec(cutout_pixels=6), rng) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    areas = cut[:, 0].sum((1, 2))
    assert areas.max() == 36
    assert areas.min() == 9  # a corner
    rows = cut[:, 0].any(2).sum(1)
    assert torch.equal(areas, rows * cut[:, 0].any(1).sum(1))
    share = cut[:, 0].float().mean(0)
    inner = share[3:-3, 3:-3]  # every inner pixel is as likely to go
    assert inner.max() - inner.min() < 0.05
    assert inner.mean() == pytest.approx(36 / SIZE**2, rel=0.05)


def test_draws_are_each_images_own(image: Tensor, rng: torch.Generator) -> None:
    moved = ours_moved(image, rng, shift_pixels=2, hflip=0.5)
    assert len(moved.flatten(1).unique(dim=0)) == 50  # 5 x 5 shifts, each flipped or not


def test_large_shifts_are_reflected_as_often_as_it_takes(rng: torch.Generator) -> None:
    tiny = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(200, 1, 4, 4)
    moved = move_pixels(tiny, AugmentationSpec(shift_pixels=64), rng)
    steps = moved[:, 0, 0].long().diff(dim=1).abs()
    assert torch.equal(steps, torch.ones_like(steps))


def test_mixing_blends_with_the_partner() -> None:
    batch = torch.rand(4, 3, SIZE, SIZE)
    partners = torch.tensor([1, 0, 3, 2])
    assert torch.allclose(mixup(batch, 0.7, partners), 0.7 * batch + 0.3 * batch[partners])


def test_one_pixel_images_survive_every_move(rng: torch.Generator) -> None:
    everything = AugmentationSpec(hflip=0.5, vflip=0.5, rotation_degrees=90, shift_pixels=2, crop_padding=2)
    assert move_pixels(torch.ones(8, 3, 1, 1, dtype=torch.uint8), everything, rng).shape == (8, 3, 1, 1)
