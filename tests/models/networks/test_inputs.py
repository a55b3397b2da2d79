"""Images at another size: smaller ones are antialiased as torchvision does it, larger ones are as they always were."""

import pytest
import torch
from torch.nn import functional as F

from models.networks.inputs import resize
from models.torchvision_compat import torchvision

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [8, 15, 24, 31])
def test_smaller_images_are_torchvisions(size: int) -> None:
    resized = torchvision.transforms.functional.resize(IMAGES, [size, size], antialias=True)
    assert torch.allclose(resize(IMAGES, size, antialias=True), resized, atol=1e-6)


@pytest.mark.parametrize("size", [32, 33, 64, 224])
@pytest.mark.parametrize("antialias", [False, True])
def test_larger_images_are_the_same_to_the_bit_with_and_without(size: int, antialias: bool) -> None:
    expected = F.interpolate(IMAGES, (size, size), mode="bilinear", align_corners=False)
    assert torch.equal(resize(IMAGES, size, antialias=antialias), expected)


def test_stripes_become_gray_instead_of_wider_stripes() -> None:
    stripes = (torch.arange(32) % 2).float().expand(1, 1, 32, 32)
    assert (resize(stripes, 12, antialias=True)[..., 2:-2] - 0.5).abs().max() < 0.1
    assert (resize(stripes, 12, antialias=False) - 0.5).abs().max() > 0.3


@pytest.mark.parametrize("size", [8, 20])
def test_without_antialiasing_it_is_what_it_was(size: int) -> None:
    expected = F.interpolate(IMAGES, (size, size), mode="bilinear", align_corners=False)
    assert torch.equal(resize(IMAGES, size, antialias=False), expected)
