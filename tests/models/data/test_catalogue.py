"""A dataset is a module with a recipe and a line in the catalogue; it can then be named, fetched and trained on."""

from pathlib import Path
from typing import Any

import pytest

from models.data import catalogue
from models.data.cifar10 import CIFAR10
from models.data.dataset import load_dataset
from models.data.fashion_mnist import FASHION_MNIST
from models.data.info import DatasetInfo
from models.networks.findings import spec_warnings
from models.settings import Settings
from models.spec.parse import parse_spec
from tests.models.data.tiny import INFO, fill, recipe
from worker.training.engine import train
from worker.training.sink import MemorySink

NETWORK = {"name": "cnn", "blocks": [{"convs": [{"channels": 4, "padding": 1}]}]}


def codes(info: DatasetInfo, **wanted: Any) -> set[str]:
    spec = parse_spec({"model": NETWORK, "dataset": {"name": info.name, "train_limit": 10}, "batch_size": 8, **wanted})
    return {finding["code"] for finding in spec_warnings(spec, info)}


def test_an_entry_in_the_catalogue_is_all_that_training_on_a_dataset_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.DATASETS, INFO.name, recipe(fill))
    settings = Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    spec = parse_spec({"model": NETWORK, "dataset": INFO.name, "epochs": 2, "batch_size": 8})
    sink = MemorySink()
    outcome = train(spec, load_dataset(spec.dataset.name, settings), sink, tmp_path, device="cpu")
    assert (outcome.status, len(sink.epochs)) == ("completed", 2)
    assert INFO in catalogue.list_datasets()


def test_what_images_allow_is_the_datasets_to_say() -> None:
    upside_down = {"augmentation": {"vflip": 0.5}}
    mirrored = {"augmentation": {"hflip": 0.5}}
    for info in (CIFAR10, FASHION_MNIST):
        assert "upside-down" in codes(info, **upside_down)
        assert "mirrored" not in codes(info, **mirrored) | codes(info, test_time_augmentation="mirror")
    assert "upside-down" not in codes(INFO, **upside_down)
    assert all("mirrored" in codes(INFO, **wanted) for wanted in (upside_down, mirrored))
    assert "mirrored" in codes(INFO, test_time_augmentation="mirror")
    assert not {"mirrored", "upside-down"} & codes(INFO)
