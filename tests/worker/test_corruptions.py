"""Corruptions are those of CIFAR-10-C and ImageNet-C: compared with the libraries that those were made with."""

import colorsys
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from worker.corruptions import CIFAR_10_C, IMAGENET_C, Corruption, corrupt, parameters_for


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def pictures(channels: int = 3, side: int = 16) -> Tensor:
    """Random images, with a black one and a white one."""
    found = torch.randint(0, 256, (6, channels, side, side), generator=generator(), dtype=torch.uint8)
    found[0], found[1] = 0, 255
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corruption", list(Corruption))
def test_every_strength_changes_images_more_than_the_one_before_and_keeps_their_form(
    corruption: Corruption, channels: int
) -> None:
    images = pictures(channels)
    if corruption is Corruption.JPEG_COMPRESSION:  # noise is as bad to compress at any strength
        images = (
            (images.float().mean(dim=-1, keepdim=True) + torch.arange(16)).clamp(0, 255).byte().expand(-1, -1, 16, 16)
        )
    for parameters in (CIFAR_10_C, IMAGENET_C):
        changes = []
        for value in parameters.values[corruption]:
            made = corrupt(images, corruption, value, generator())
            assert (made.shape, made.dtype) == (images.shape, torch.uint8)
            changes.append(float((made.float() - images.float()).abs().mean()))
        assert changes == sorted(changes)
        assert len(changes) == 5
        assert changes[0] > 0


def test_noise_has_its_deviation_and_is_the_same_every_time() -> None:
    grey = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    made = corrupt(grey, Corruption.GAUSSIAN_NOISE, 0.1, generator())
    assert float((made.float() / 255).std()) == pytest.approx(0.1, rel=0.03)
    assert torch.equal(made, corrupt(grey, Corruption.GAUSSIAN_NOISE, 0.1, generator()))


@pytest.mark.parametrize("deviation", [0.4, 0.7, 1.0, 3.0, 6.0])
def test_a_blur_is_scipys_gaussian_filter(deviation: float) -> None:
    images = pictures()
    made = corrupt(images, Corruption.GAUSSIAN_BLUR, deviation, generator()).numpy().astype(int)
    for image, blurred in zip(images.numpy(), made, strict=True):
        expected = np.stack([gaussian_filter(channel / 255, deviation, mode="nearest") for channel in image])
        assert np.abs(blurred - (expected.clip(0, 1) * 255).astype(int)).max() <= 1


@pytest.mark.parametrize("added", [0.05, 0.3, 0.5])
def test_brightness_is_added_to_the_value_of_hsv(added: float) -> None:
    images = pictures(side=4)
    made = corrupt(images, Corruption.BRIGHTNESS, added, generator()).numpy().astype(int)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    for before, after in zip(pixels, made.transpose(0, 2, 3, 1).reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(float(part) / 255 for part in before))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + added))
        assert np.abs(after - np.array([int(255 * part) for part in expected])).max() <= 1


@pytest.mark.parametrize("quality", [80, 7])
def test_jpeg_is_pillows(quality: int) -> None:
    images: Any = pictures()
    made = corrupt(images, Corruption.JPEG_COMPRESSION, quality, generator()).numpy()
    for image, compressed in zip(images.numpy(), made, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        assert np.array_equal(compressed.transpose(1, 2, 0), np.asarray(Image.open(file)))


def test_small_images_get_the_parameters_of_the_benchmark_of_small_images() -> None:
    assert parameters_for(32) is CIFAR_10_C
    assert parameters_for(224) is IMAGENET_C
