"""Corrupts images at five strengths, as ImageNet-C and CIFAR-10-C do: noise, blur, brightness and JPEG.

Hendrycks and Dietterich 2019 (arXiv 1903.12261); the parameters are those of their published code, of CIFAR-10-C for
images of up to 64 pixels and of ImageNet-C for larger ones. As there, results are truncated to bytes, not rounded.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SMALL_SIDE = 64


class Corruption(StrEnum):
    """A kind of corruption."""

    GAUSSIAN_NOISE = "gaussian_noise"
    """Normal noise; the parameter is its standard deviation, of pixels from 0 to 1."""
    GAUSSIAN_BLUR = "gaussian_blur"
    """A Gaussian filter; the parameter is its standard deviation in pixels."""
    BRIGHTNESS = "brightness"
    """The parameter is added to the value of HSV, from 0 to 1."""
    JPEG_COMPRESSION = "jpeg_compression"
    """Encoded and decoded as JPEG; the parameter is the quality."""


@dataclass(frozen=True)
class Parameters:
    """The parameter of each corruption at the strengths 1 to 5, and the benchmark that it is from."""

    source: str
    values: dict[Corruption, tuple[float, ...]]


CIFAR_10_C = Parameters(
    "CIFAR-10-C",
    {
        Corruption.GAUSSIAN_NOISE: (0.04, 0.06, 0.08, 0.09, 0.10),
        Corruption.GAUSSIAN_BLUR: (0.4, 0.6, 0.7, 0.8, 1.0),
        Corruption.BRIGHTNESS: (0.05, 0.1, 0.15, 0.2, 0.3),
        Corruption.JPEG_COMPRESSION: (80, 65, 58, 50, 40),
    },
)
IMAGENET_C = Parameters(
    "ImageNet-C",
    {
        Corruption.GAUSSIAN_NOISE: (0.08, 0.12, 0.18, 0.26, 0.38),
        Corruption.GAUSSIAN_BLUR: (1, 2, 3, 4, 6),
        Corruption.BRIGHTNESS: (0.1, 0.2, 0.3, 0.4, 0.5),
        Corruption.JPEG_COMPRESSION: (25, 18, 15, 10, 7),
    },
)


def parameters_for(side: int) -> Parameters:
    """The parameters for images of this side in pixels: CIFAR-10-C's up to SMALL_SIDE, else ImageNet-C's."""
    return CIFAR_10_C if side <= SMALL_SIDE else IMAGENET_C


def corrupt(images: Tensor, corruption: Corruption, parameter: float, generator: torch.Generator) -> Tensor:
    """Corrupt images uint8 (N, C, H, W), C 1 or 3. `generator` draws the noise."""
    return CORRUPT[corruption](images, parameter, generator)


def _to_bytes(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255).byte()


def _add_noise(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    values = images.float() / 255
    return _to_bytes(values + deviation * torch.randn(values.shape, generator=generator))


def _blur(images: Tensor, deviation: float, _: torch.Generator) -> Tensor:
    """Gaussian blur: separable, truncated at four standard deviations; the edge pixels are repeated beyond the edge."""
    radius = int(4 * deviation + 0.5)
    places = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (places / deviation) ** 2)
    kernel /= kernel.sum()
    values = images.float() / 255
    flat = values.reshape(-1, 1, *values.shape[-2:])
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    return _to_bytes(flat.reshape(values.shape))


def _brighten(images: Tensor, added: float, _: torch.Generator) -> Tensor:
    """Raise the value of HSV, which is the largest channel: with hue and saturation kept, all channels are scaled."""
    values = images.double() / 255
    before = values.amax(dim=1, keepdim=True)
    after = (before + added).clamp(max=1)
    scaled = torch.where(before > 0, values * (after / before.clamp(min=1e-12)), after.expand_as(values))
    return _to_bytes(scaled)


def _compress(images: Tensor, quality: float, _: torch.Generator) -> Tensor:
    return torch.from_numpy(np.stack([_as_jpeg(image, int(quality)) for image in images.numpy()]))


def _as_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file))
    return read[None] if read.ndim == 2 else read.transpose(2, 0, 1)


CORRUPT: dict[Corruption, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    Corruption.GAUSSIAN_NOISE: _add_noise,
    Corruption.GAUSSIAN_BLUR: _blur,
    Corruption.BRIGHTNESS: _brighten,
    Corruption.JPEG_COMPRESSION: _compress,
}
