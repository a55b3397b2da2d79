"""The real datasets: what they hold, and that every process maps the same pages."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.data.catalogue import get_dataset, list_datasets
from models.data.cifar10 import CIFAR10
from models.data.contents import fingerprint, pixel_statistics
from models.data.dataset import ImageDataset, load_dataset
from models.errors import SpecError
from models.settings import Settings


@pytest.fixture(scope="module")
def cifar10() -> ImageDataset:
    return load_dataset("cifar10", Settings())


def test_cifar10_is_the_published_one(cifar10: ImageDataset) -> None:
    assert cifar10.train_images.shape == (50_000, 3, 32, 32)
    assert cifar10.test_images.shape == (10_000, 3, 32, 32)
    assert cifar10.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert cifar10.test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert np.bincount(cifar10.train_labels).tolist() == [5000] * 10
    assert np.bincount(cifar10.test_labels).tolist() == [1000] * 10
    mean, std = pixel_statistics(cifar10.train_images)
    assert mean.tolist() == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=5e-9)
    assert std.tolist() == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=5e-9)


def test_its_fingerprint_is_that_of_its_content(cifar10: ImageDataset) -> None:
    assert cifar10.fingerprint == "5e5e71ed4630d506c7721247a52e06e4d8039bf51773ffa53a56d97866d045ee"
    assert fingerprint(cifar10) == cifar10.fingerprint


def test_images_are_mapped_not_copied_and_cannot_be_changed_on_disk(cifar10: ImageDataset) -> None:
    assert isinstance(cifar10.train_images, np.memmap)
    tensor = torch.from_numpy(cifar10.train_images)  # warns, and fails here, if NumPy called the array read-only
    assert tensor.data_ptr() == cifar10.train_images.ctypes.data
    before = int(tensor[0, 0, 0, 0])
    tensor[0, 0, 0, 0] = 255 - before
    assert load_dataset("cifar10", Settings()).train_images[0, 0, 0, 0] == before
    tensor[0, 0, 0, 0] = before


def test_the_catalogue_names_what_it_has_and_the_nearest_to_what_it_has_not() -> None:
    names = [info.name for info in list_datasets()]
    assert names[:2] == ["cifar10", "fashion-mnist"]
    assert {"cifar100", "mnist", "kmnist", "svhn", "stl10", "gtsrb", "oxford-pets", "flowers102"} < set(names)
    assert {f"emnist-{form}" for form in ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")} < set(names)
    assert len(names) == len(set(names))
    json.dumps([info.as_json() for info in list_datasets()])
    with pytest.raises(SpecError) as caught:
        get_dataset("cifar-10")
    assert caught.value.errors[0]["field"] == "dataset.name"
    assert caught.value.errors[0]["nearest"] == "cifar10"
    with pytest.raises(SpecError) as caught:
        get_dataset("nope")
    assert "nearest" not in caught.value.errors[0]
    assert "cifar10" in caught.value.errors[0]["choices"]
    with pytest.raises(SpecError):
        get_dataset("../../etc/passwd\0" * 100)


def test_statistics_count_every_pixel_exactly() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5003, 2, 3, 3), dtype=np.uint8)
    mean, std = pixel_statistics(images)
    scaled = images.astype(np.float64) / 255
    assert mean.tolist() == pytest.approx(scaled.mean(axis=(0, 2, 3)).tolist(), abs=1e-12)
    assert std.tolist() == pytest.approx(scaled.std(axis=(0, 2, 3)).tolist(), abs=1e-12)


def test_an_entry_is_a_value() -> None:
    assert replace(CIFAR10) == CIFAR10
