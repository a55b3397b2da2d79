"""Draws a picture of augmented training images, taken from the batches that training would use."""

import base64
import io
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from models.data.uploaded import open_local
from models.measurements import AugmentedPicture
from models.plain import JsonObject
from models.preprocessing import Preprocessing
from models.settings import Settings
from models.spec.parse import load_spec
from worker.training.build import build_batches, build_data
from worker.training.tuning import choose_tuning

COLUMNS, ROWS = 8, 5
TILE_PIXELS = 96
"""Side that a small image is enlarged to, by a whole factor; a larger one is shown as it is."""
GAP_PIXELS = 2
LARGEST_PIXELS = 224
"""Side that a larger image is reduced to."""


def draw_augmented(body: JsonObject, settings: Settings) -> AugmentedPicture:
    """Draw the first training images of the first epoch, augmented: a PNG in base64."""
    spec = load_spec(body)
    dataset = open_local(spec.dataset, settings)
    tuning = choose_tuning(spec, dataset, settings.device, cuda_graphs=False)
    with tuning.applied():
        data = build_data(spec, dataset, tuning)
        batches = build_batches(spec, data, tuning)
        wanted = COLUMNS * ROWS
        needed = -(-wanted // spec.batch_size) + 1
        images = [batch.images.cpu() for batch in islice(batches.iterate(1, data.input_format.size), needed)]
    pixels = as_pixels(torch.cat(images)[:wanted].float(), data.preprocessing)
    file = io.BytesIO()
    Image.fromarray(grid(pixels)).save(file, "PNG")
    return {"png": base64.b64encode(file.getvalue()).decode(), "num_images": len(pixels)}


def as_pixels(images: Tensor, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Images of a network's input (N, C, H, W) as uint8 (N, H, W, 3): normalisation undone, clipped to 0 to 255."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    pixels = ((images * std + mean) * 255).round().clamp(0, 255).byte()
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def grid(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Images (N, H, W, 3) side by side in rows of COLUMNS, on white."""
    side = images.shape[1]
    if side > LARGEST_PIXELS:
        shape = (LARGEST_PIXELS, LARGEST_PIXELS)
        images = np.stack([np.asarray(Image.fromarray(image).resize(shape)) for image in images])
    else:
        factor = max(1, TILE_PIXELS // side)
        images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    tile = images.shape[1] + GAP_PIXELS
    rows = -(-len(images) // COLUMNS)
    sheet = np.full((rows * tile, min(COLUMNS, len(images)) * tile, 3), 255, np.uint8)
    for place, image in enumerate(images):
        top, left = place // COLUMNS * tile, place % COLUMNS * tile
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
