"""One image of an experiment's dataset, by its place in a split."""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from models.data.dataset import ImageDataset
from models.data.splits import split_dataset
from models.data.uploaded import open_local
from models.errors import Conflict, DataUnavailable, InvalidRequest, NotFound, SpecError
from models.settings import Settings
from models.spec.data import DatasetSpec
from models.spec.parse import load_spec
from models.store import experiments

MAX_SIDE = 2048
"""The largest side in pixels of an enlarged image."""


class ImageSplit(StrEnum):
    """A split of the experiment's dataset."""

    TRAIN = "train"
    """The images that it is trained on."""
    VALIDATION = "validation"
    """The images that are held out."""
    TEST = "test"
    """The dataset's own test images."""


class SplitImages:
    """The images of a split, uint8 (C, H, W) each, by their position from 0."""

    def __init__(self, images: NDArray[np.uint8], indices: NDArray[np.int64] | None) -> None:
        self._images = images
        self._indices = indices

    def __len__(self) -> int:
        return len(self._images) if self._indices is None else len(self._indices)

    def pixels(self, position: int) -> NDArray[np.uint8]:
        """An image as (H, W, 3)."""
        index = position if self._indices is None else int(self._indices[position])
        image = np.asarray(self._images[index]).transpose(1, 2, 0)
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def open_split(session: Session, experiment_id: int, split: ImageSplit, settings: Settings) -> SplitImages:
    """The images of a split of an experiment. Raises Conflict if this machine's cache does not hold the dataset."""
    row = experiments.get(session, experiment_id)
    spec = load_spec(row.spec)
    dataset = _load(spec.dataset, settings)
    if row.dataset_fingerprint is not None and row.dataset_fingerprint != dataset.fingerprint:
        raise Conflict(f"experiment {row.id} was trained on another version of {spec.dataset.name} than is here now")
    if split is ImageSplit.TEST:
        return SplitImages(dataset.test_images, None)
    train, validation = split_dataset(dataset, spec)
    return SplitImages(dataset.train_images, train if split is ImageSplit.TRAIN else validation)


def read_image(images: SplitImages, split: ImageSplit, index: int, scale: int) -> NDArray[np.uint8]:
    """An image (H, W, 3), each pixel a square of `scale` pixels. Raises NotFound beyond the last one."""
    if index >= len(images):
        raise NotFound(
            f"the {split} split has no image {index}; its images are 0 to {len(images) - 1}",
            fix="GET .../mistakes gives the positions of images",
        )
    pixels = images.pixels(index)
    if max(pixels.shape[:2]) * scale > MAX_SIDE:
        largest = MAX_SIDE // max(pixels.shape[:2])
        message = f"is {scale}; an image of {pixels.shape[1]} x {pixels.shape[0]} pixels is drawn up to {largest} times"
        raise InvalidRequest(f"scale {message}", errors=[{"field": "scale", "message": message, "nearest": largest}])
    return enlarged(pixels, scale)


def enlarged(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Each pixel as a square of `scale` pixels."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def _load(dataset: DatasetSpec, settings: Settings) -> ImageDataset:
    try:
        return open_local(dataset, settings)
    except SpecError as error:
        raise Conflict(f"the images of {dataset.name} are not in this lab any more: {error.detail}") from error
    except DataUnavailable as error:
        raise Conflict(f"the images of {dataset.name} are not on the machine of the API", fix=error.fix) from error
