"""The images of a dataset: pages of them by class and split, and one as a picture."""

from itertools import islice

import numpy as np
import numpy.typing as npt

from models.data.catalogue import DATASETS
from models.data.dataset import ImageDataset
from models.data.importing.files import ImageRecord, read_files
from models.data.importing.names import class_name
from models.data.uploaded import find_dataset, open_local
from models.errors import Conflict, DataUnavailable, FieldError, InvalidRequest, NotFound, SpecError
from models.settings import Settings
from models.spec.data import DatasetSpec
from models.store.states import DatasetStatus
from models.store.tables import DatasetVersion
from service.datasets.documents import ImageItem, ImagePage, address_of

SPLITS = ("train", "validation", "test")
MAX_SIDE = 2048
"""The largest side in pixels of an enlarged image."""


def open_images(name: str, row: DatasetVersion | None, settings: Settings) -> ImageDataset:
    """The arrays of a dataset; `row` is None for a built-in one. Raises Conflict if they are not on this machine."""
    if row is not None and row.status is not DatasetStatus.READY:
        raise Conflict(f"version {row.version} of dataset {name} is {row.status}, so it has no images")
    spec = DatasetSpec(name=name, fingerprint=None if row is None else row.fingerprint)
    try:
        return open_local(spec, settings)
    except (SpecError, DataUnavailable) as error:
        raise Conflict(f"the images of {name} are not on the machine of the API", fix=error.fix) from error


def list_images(
    dataset: ImageDataset,
    settings: Settings,
    *,
    name: str,
    version: int | None,
    label: str | None,
    split: str | None,
    page: int,
    limit: int,
) -> ImagePage:
    """One page of a dataset's images, in the order of their ids. Raises InvalidRequest for a class that is none."""
    names = dataset.info.class_names
    label = None if label is None else class_name(label)
    if label is not None and label not in names:
        message = f"there is no class {label[:100]!r}"
        entry: FieldError = {"field": "class", "message": message, "choices": list(names[:50])}
        raise InvalidRequest(message, errors=[entry])
    ids = _ids(dataset, None if label is None else names.index(label), split)
    chosen = ids[(page - 1) * limit : page * limit].tolist()
    records = _records(dataset, settings, name, set(chosen))
    items = [_item(dataset, image, records.get(image), name, version) for image in chosen]
    return ImagePage(items=items, page=page, pages=max(1, -(-len(ids) // limit)), total=len(ids))


def read_pixels(dataset: ImageDataset, image: int, scale: int) -> npt.NDArray[np.uint8]:
    """An image (H, W, 3), each pixel a square of `scale` pixels. Raises NotFound beyond the last one."""
    num_train, num_images = dataset.info.num_train, dataset.info.num_train + dataset.info.num_test
    if image >= num_images:
        raise NotFound(f"the dataset has no image {image}; its images are 0 to {num_images - 1}")
    if dataset.info.size * scale > MAX_SIDE:
        largest = max(1, MAX_SIDE // dataset.info.size)
        message = f"is {scale}; images of {dataset.info.size} pixels a side are drawn up to {largest} times as large"
        raise InvalidRequest(f"scale {message}", errors=[{"field": "scale", "message": message, "nearest": largest}])
    rows = dataset.train_images if image < num_train else dataset.test_images
    pixels = np.asarray(rows[image if image < num_train else image - num_train]).transpose(1, 2, 0)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return np.ascontiguousarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))


def _ids(dataset: ImageDataset, label: int | None, split: str | None) -> npt.NDArray[np.int64]:
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    wanted = np.ones(len(labels), dtype=np.bool_) if label is None else labels == label
    if split is not None:
        wanted &= _split_numbers(dataset) == SPLITS.index(split)
    return np.flatnonzero(wanted)


def _split_numbers(dataset: ImageDataset) -> npt.NDArray[np.int8]:
    """Of each image, the place of its split in SPLITS; validation is what the dataset itself holds out."""
    numbers = np.zeros(len(dataset.train_labels), dtype=np.int8)
    if dataset.validation is not None:
        numbers[dataset.validation] = 1
    return np.concatenate([numbers, np.full(len(dataset.test_labels), 2, dtype=np.int8)])


def _records(dataset: ImageDataset, settings: Settings, name: str, wanted: set[int]) -> dict[int, ImageRecord]:
    """The file records of these images; none for a built-in dataset."""
    found = find_dataset(DatasetSpec(name=name, fingerprint=_fingerprint(dataset, name)), settings)
    if found.folder is None or not wanted:
        return {}
    listed = islice(read_files(found.folder), min(wanted), max(wanted) + 1)
    return {record.id: record for record in listed if record.id in wanted}


def _fingerprint(dataset: ImageDataset, name: str) -> str | None:
    return None if name in DATASETS else dataset.fingerprint


def _item(dataset: ImageDataset, image: int, record: ImageRecord | None, name: str, version: int | None) -> ImageItem:
    num_train = dataset.info.num_train
    labels, row = (dataset.train_labels, image) if image < num_train else (dataset.test_labels, image - num_train)
    query = "" if version is None else f"?version={version}"
    return ImageItem(
        id=image,
        label=dataset.info.class_names[int(labels[row])],
        split=SPLITS[2 if image >= num_train else int(dataset.validation is not None and dataset.validation[row])],
        file=None if record is None else record.name,
        width=None if record is None else record.width,
        height=None if record is None else record.height,
        links={"image": f"{address_of(name)}/images/{image}.png{query}"},
    )
