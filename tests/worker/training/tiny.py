"""Small real images and small networks for the engine's tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from models.curves.metrics import EpochMetrics
from models.data.cifar10 import CIFAR10
from models.data.dataset import ImageDataset, load_dataset
from models.settings import Settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from worker.training.diagnosis import divergence
from worker.training.engine import train
from worker.training.sink import MemorySink, Outcome

NETWORK = {
    "name": "cnn",
    "blocks": [
        {"convs": [{"channels": 4, "padding": 1, "batch_norm": True}], "dropout": 0.1},
        {"convs": [{"channels": 8, "padding": 1}]},
    ],
    "head": {"hidden": [16], "dropout": [0.1, 0.1]},
}
"""Batch normalisation and both kinds of dropout, in 2,400 parameters."""

PLAIN = {"name": "cnn", "blocks": [{"convs": [{"channels": 4, "padding": 1}]}], "head": {"hidden": [16]}}


@lru_cache(maxsize=4)
def images(num: int = 200, num_test: int = 40, size: int = 16) -> ImageDataset:
    """The middle of the first real images."""
    whole = load_dataset(CIFAR10.name, Settings(), lambda label, done, total: None)
    edge = (32 - size) // 2
    middle = np.s_[:, :, edge : edge + size, edge : edge + size]
    return ImageDataset(
        info=replace(CIFAR10, size=size, num_train=num, num_test=num_test),
        train_images=np.ascontiguousarray(whole.train_images[:num][middle]),
        train_labels=whole.train_labels[:num].copy(),
        test_images=np.ascontiguousarray(whole.test_images[:num_test][middle]),
        test_labels=whole.test_labels[:num_test].copy(),
        fingerprint=f"first {num} of cifar10, {size} pixels",
    )


def spec(**changes: Any) -> ExperimentSpec:
    """Three epochs of five steps, with whatever else is asked for."""
    return parse_spec(
        {"model": NETWORK, "epochs": 3, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05}, **changes}
    )


def run(folder: Path, **changes: Any) -> tuple[Outcome, MemorySink]:
    """Train on the tiny images."""
    sink = MemorySink()
    return train(spec(**changes), images(), sink, folder, device="cpu"), sink


@contextmanager
def no_rates_tried() -> Iterator[None]:
    """Divergences are explained without a search for a rate that works, which takes seconds and has its own tests."""
    with mock.patch.object(divergence, "find_working_rate", return_value=(None, "No rate was tried.")):
        yield


TIMES = ("seconds", "images_per_second", "peak_memory_mb")


def figures(history: list[EpochMetrics]) -> list[tuple[float | None, ...]]:
    """The part of a history that does not depend on the machine."""
    names = [name for name in EpochMetrics.__dataclass_fields__ if name not in TIMES]
    return [tuple(getattr(metrics, name) for name in names) for metrics in history]


def same_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts agree to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
