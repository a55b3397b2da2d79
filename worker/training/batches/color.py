"""Colour changes of a batch of float images in 0..1, each image by its own amount (N, 1, 1, 1).

The formulas are torchvision's (transforms.functional): blends that are clamped to 0..1, and hue by way of HSV.
Images of one channel have no saturation or hue, as there.
"""

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R 601-2, with the digits that torchvision uses."""


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return (images * factor).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey."""
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, factor).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image in grey."""
    if images.shape[1] != 3:
        return images
    return torch.lerp(_grey(images).expand_as(images), images, factor).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue by `shift` turns of the colour circle."""
    if images.shape[1] != 3:
        return images
    hue, saturation, value = _to_hsv(images)
    return _to_rgb((hue + shift.squeeze(1)).remainder_(1.0), saturation, value)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def _to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = images.unbind(1)
    value, lowest = images.amax(1), images.amin(1)
    spread = value - lowest
    grey = spread == 0
    saturation = spread / torch.where(value == 0, 1.0, value)
    divisor = torch.where(grey, 1.0, spread)
    to_red, to_green, to_blue = (value - red) / divisor, (value - green) / divisor, (value - blue) / divisor
    is_red = value == red
    is_green = (value == green) & ~is_red
    hue = torch.where(
        is_red, to_blue - to_green, torch.where(is_green, 2.0 + to_red - to_blue, 4.0 + to_green - to_red)
    )
    return (hue / 6.0 + 1.0).fmod_(1.0), saturation, value


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Each channel falls from `value` by saturation * a trapezoid of the hue: the closed form of the six sectors."""
    channels = []
    for offset in (5.0, 3.0, 1.0):
        place = (hue * 6.0 + offset).remainder_(6.0)
        fall = torch.minimum(place, 4.0 - place).clamp_(0.0, 1.0)
        channels.append(value - value * saturation * fall)
    return torch.stack(channels, 1)
