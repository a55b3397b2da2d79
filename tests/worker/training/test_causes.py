"""The verdict on real trainings names the mistake that was made in them, and none where none was made."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.data.dataset import ImageDataset
from models.findings import CAUSES
from tests.worker.training.tiny import PLAIN, images, spec
from worker.training.engine import train
from worker.training.sink import MemorySink


def causes(folder: Path, dataset: ImageDataset | None = None, **changes: Any) -> list[str]:
    sink = MemorySink()
    train(spec(model=PLAIN, **{"epochs": 4, **changes}), dataset or images(), sink, folder, device="cpu")
    return [finding.code for finding in sink.verdicts[-1].findings if finding.code in CAUSES]


def test_a_healthy_training(tmp_path: Path) -> None:
    assert causes(tmp_path) == []


def test_a_body_with_random_weights_that_stays_frozen(tmp_path: Path) -> None:
    assert causes(tmp_path, fine_tuning={"freeze_backbone_epochs": 100}) == ["frozen-body"]


def test_a_rate_that_leaves_the_weights_where_they_are(tmp_path: Path) -> None:
    assert causes(tmp_path, optimizer={"name": "sgd", "lr": 1e-6}) == ["lr-too-low"]


@pytest.mark.usefixtures("no_rates_tried")
def test_a_rate_at_which_the_loss_leaves_all_bounds(tmp_path: Path) -> None:
    assert causes(tmp_path, optimizer={"name": "sgd", "lr": 50.0}) == ["lr-too-high"]


def test_a_dataset_whose_images_come_twice(tmp_path: Path) -> None:
    once = images()
    first = once.train_images[:100]
    twice = replace(once, train_images=first.repeat(2, axis=0), train_labels=once.train_labels[:100].repeat(2))
    assert causes(tmp_path, twice) == ["contaminated-validation"]
