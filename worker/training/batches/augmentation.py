"""Augmentation of a whole batch by tensor operations, with random numbers drawn for each image.

Each matches torchvision's per-image transform of that name in distribution. Flips, rotation, shifts and crops only
move pixels: they are composed into one map from output pixel to source pixel and the uint8 images are gathered once,
whatever is asked for. What changes values works on floats: colours before normalisation, erasing after it, when 0 is
the mean colour.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from models.spec.data import AugmentationSpec
from worker.training.batches import color

ERASE_AREA = (0.02, 0.33)
ERASE_RATIO = (0.3, 3.3)
ERASE_ATTEMPTS = 10
"""torchvision's RandomErasing: area and aspect of the rectangle, and how often one that does not fit is drawn again."""


def moves_pixels(spec: AugmentationSpec) -> bool:
    """Whether the augmentation has anything for `move_pixels` to do."""
    return bool(spec.hflip or spec.vflip or spec.rotation_degrees or spec.shift_pixels or spec.crop_padding)


def move_pixels(images: Tensor, spec: AugmentationSpec, rng: Generator) -> Tensor:
    """Shift, crop, flip and rotate uint8 images (N, C, H, W), in this order. Uncovered corners become 0, black."""
    num, channels, height, width = images.shape
    draw = _Draws(num, images.device, rng)
    # For each output pixel, the row and column of its source: (N or 1, height or 1, width or 1), which broadcast to
    # (N, height, width). So the operations below are applied in the reverse of the order in which images undergo them.
    rows, columns, inside = _output_grid(draw, spec, height, width)
    if spec.vflip:
        rows = torch.where(draw.happens(spec.vflip), height - 1 - rows, rows)
    if spec.hflip:
        columns = torch.where(draw.happens(spec.hflip), width - 1 - columns, columns)
    if spec.shift_pixels:
        rows = _reflect(rows + draw.integers(spec.shift_pixels), height)
        columns = _reflect(columns + draw.integers(spec.shift_pixels), width)
    if spec.crop_padding:
        rows, rows_inside = _within(rows + draw.integers(spec.crop_padding), height)
        columns, columns_inside = _within(columns + draw.integers(spec.crop_padding), width)
        covered = rows_inside & columns_inside
        inside = covered if inside is None else inside & covered
    # (N, 1, height * width): one gather for all channels; uint8 is a quarter of the memory that floats would move
    source = (rows * width + columns).expand(num, height, width).reshape(num, 1, height * width)
    moved = images.flatten(2).gather(2, source.expand(num, channels, -1)).view_as(images)
    return moved if inside is None else moved.mul_(inside.unsqueeze(1))


def _output_grid(
    draw: "_Draws", spec: AugmentationSpec, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The source of each output pixel before flips and shifts: itself, or the nearest pixel after a rotation."""
    rows = torch.arange(height, device=draw.device).view(1, height, 1)
    columns = torch.arange(width, device=draw.device).view(1, 1, width)
    if not spec.rotation_degrees:
        return rows, columns, None
    # Output to source is the inverse rotation, about the centre of the pixels' grid at (height - 1) / 2. The floor
    # after adding height / 2 rounds to the nearest pixel, which is torchvision's default interpolation.
    angle = draw.uniform(-spec.rotation_degrees, spec.rotation_degrees) * (math.pi / 180)
    sine, cosine = angle.sin(), angle.cos()
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    turned_rows = (sine * x + cosine * y + height / 2).floor_().long()
    turned_columns = (cosine * x - sine * y + width / 2).floor_().long()
    turned_rows, rows_inside = _within(turned_rows, height)
    turned_columns, columns_inside = _within(turned_columns, width)
    return turned_rows, turned_columns, rows_inside & columns_inside


def _within(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The position clamped to the image, and whether it was inside."""
    return position.clamp(0, size - 1), (position >= 0) & (position < size)


def _reflect(position: Tensor, size: int) -> Tensor:
    """The position mirrored at the edges, without repeating the edge itself, as often as needed."""
    period = max(1, 2 * (size - 1))  # 0 1 2 3 2 1 for a size of 4
    folded = position.remainder(period)
    return torch.minimum(folded, period - folded)


def jitter_colors(images: Tensor, spec: AugmentationSpec, rng: Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of float images (N, C, H, W) in 0..1.

    The order is drawn for each image, so each place in the order is worked on for the images that have an operation
    there: as many passes as there are operations, over all images together.
    """
    num = len(images)
    draw = _Draws(num, images.device, rng)
    jitter = spec.color_jitter
    changes: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = []
    for blend, strength in (
        (color.adjust_brightness, jitter.brightness),
        (color.adjust_contrast, jitter.contrast),
        (color.adjust_saturation, jitter.saturation),
    ):
        if strength:
            changes.append((blend, draw.uniform(1 - strength, 1 + strength).unsqueeze(1)))
    if jitter.hue:
        changes.append((color.adjust_hue, draw.uniform(-jitter.hue, jitter.hue).unsqueeze(1)))
    order = torch.rand(num, len(changes), device=images.device, generator=rng).argsort(1)
    for place in range(len(changes)):
        for number, (change, amount) in enumerate(changes):
            chosen = (order[:, place] == number).nonzero().squeeze(1)
            images[chosen] = change(images[chosen], amount[chosen])
    return images


def erase(images: Tensor, spec: AugmentationSpec, rng: Generator) -> Tensor:
    """Cut out and erase parts of normalised float images (N, C, H, W), in place. 0 is the mean colour there."""
    num, _, height, width = images.shape
    draw = _Draws(num, images.device, rng)
    rows = torch.arange(height, device=images.device).view(1, height, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, width)

    def blank(top: Tensor, left: Tensor, tall: Tensor | int, wide: Tensor | int) -> None:
        gone = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
        images.masked_fill_(gone.unsqueeze(1), 0.0)

    if side := spec.cutout_pixels:  # centred anywhere in the image, cut at its edges (DeVries and Taylor 2017)
        blank(draw.position(height) - side // 2, draw.position(width) - side // 2, side, side)
    if spec.random_erase:
        happens = draw.happens(spec.random_erase)
        tall, wide = _draw_rectangles(num, height, width, images.device, rng)
        blank(draw.position(height - tall + 1), draw.position(width - wide + 1), tall * happens, wide)
    return images


def _draw_rectangles(num: int, height: int, width: int, device: torch.device, rng: Generator) -> tuple[Tensor, Tensor]:
    """Height and width (N, 1, 1) of each image's first rectangle that fits; 0 where none of the attempts did."""
    area, ratio = torch.rand(2, num, ERASE_ATTEMPTS, device=device, generator=rng)
    area = (ERASE_AREA[0] + area * (ERASE_AREA[1] - ERASE_AREA[0])) * (height * width)
    log_ratio = [math.log(bound) for bound in ERASE_RATIO]
    ratio = (log_ratio[0] + ratio * (log_ratio[1] - log_ratio[0])).exp()
    tall, wide = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits, or 0 where none does
    usable = fits.gather(1, first)
    return (tall.gather(1, first) * usable).unsqueeze(2), (wide.gather(1, first) * usable).unsqueeze(2)


def mixup(images: Tensor, lam: float, partners: Tensor) -> Tensor:
    """lam times each float image plus 1 - lam times its partner, images[partners] (Zhang et al. 2018).

    One lam a batch, as in the authors' code.
    """
    return images.mul(lam).add_(images[partners], alpha=1 - lam)


class _Draws:
    """Draws one random number per image, shaped (N, 1, 1) to broadcast over rows and columns."""

    def __init__(self, num: int, device: torch.device, rng: Generator) -> None:
        self.shape = (num, 1, 1)
        self.device = device
        self.rng = rng

    def uniform(self, low: float, high: float) -> Tensor:
        return torch.rand(self.shape, device=self.device, generator=self.rng).mul_(high - low).add_(low)

    def happens(self, probability: float) -> Tensor:
        return torch.rand(self.shape, device=self.device, generator=self.rng) < probability

    def integers(self, most: int) -> Tensor:
        """Uniform integers from -most to most."""
        return torch.randint(-most, most + 1, self.shape, device=self.device, generator=self.rng)

    def position(self, count: Tensor | int) -> Tensor:
        """Uniform integers from 0 to count - 1."""
        return (torch.rand(self.shape, device=self.device, generator=self.rng) * count).long()
