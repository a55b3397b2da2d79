"""Benchmarks that train runs do so with the engine as it is, here on a few images."""

import numpy as np
import pytest

from benchmarks import accuracy, calibration, training
from benchmarks.cases import Case
from models.data.dataset import ImageDataset
from tests.worker.training.tiny import PLAIN, images, spec


def test_what_an_epoch_saves_is_timed() -> None:
    case = Case("tiny", spec(model=PLAIN, batch_size=32), images=64, report_images=64, quick_rounds=1)
    assert training.saving_seconds(case, images()) > 0


def test_accuracy_has_the_best_epoch_and_every_image_of_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "CEILING_BATCHES", 2)
    found = accuracy.measure("tiny", {"model": PLAIN, "epochs": 2, "batch_size": 32}, 0, images())
    assert (found["status"], found["images"]) == ("completed", 2 * 160)
    assert 0 <= found["val_accuracy"] <= 1


def test_calibration_scores_images_of_no_known_class(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, black = images(600, 40, 32), np.zeros((40, 3, 32, 32), np.uint8)

    def load(name: str, settings: object) -> ImageDataset:
        return tiny

    monkeypatch.setattr(calibration, "load_dataset", load)
    monkeypatch.setattr(calibration, "strangers", lambda seed, count: {"black": black})
    found = calibration.measure(PLAIN, epochs=1, seed=0)
    areas = {score: by["black"] for score, by in found["auroc"].items()}
    assert len(areas) == 9
    assert all(0 <= area <= 1 for area in areas.values())
    assert areas["pixels and energy"] == found["called_unknown"]["black"] == 1
