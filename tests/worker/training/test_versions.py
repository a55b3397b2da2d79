"""What a worker makes of a spec of version 1 is what it made of it then."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from models.data.splits import split_indices
from tests.worker.training.tiny import PLAIN, images, run, spec
from worker.training.build import build_batches, build_data, input_size_in
from worker.training.tuning import choose_tuning

SMALLER: dict[str, Any] = {
    "model": {"name": "fast_resnet", "widths": [8, 8, 8], "input_size": 12},
    "dataset": {"train_limit": 40, "val_limit": 10},
    "progressive_resizing": [{"from_epoch": 1, "input_size": 8}],
}


@pytest.mark.parametrize("version", [1, 2])
def test_images_are_made_smaller_as_the_version_says(version: int) -> None:
    wanted = spec(**SMALLER, spec_version=version)
    tuning = choose_tuning(wanted, images(), "cpu")
    data = build_data(wanted, images(), tuning)
    size = input_size_in(wanted, 1, 12)
    found = next(build_batches(wanted, data, tuning).iterate(1, size))
    order = build_batches(wanted, data, tuning).order(1)[: len(found)]
    whole = torch.from_numpy(images().train_images)[data.train.indices[order]]
    normalised = data.input_format.prepare(whole, size=whole.shape[-1])
    expected = F.interpolate(normalised, (8, 8), mode="bilinear", align_corners=False, antialias=version == 2)
    assert torch.equal(found.images, expected)


def test_version_1_takes_the_first_images_of_a_split() -> None:
    wanted = spec(**SMALLER, spec_version=1)
    data = build_data(wanted, images(), choose_tuning(wanted, images(), "cpu"))
    whole, validation = split_indices(images().train_labels, spec().dataset)
    assert data.train.indices.tolist() == whole[:40].tolist()
    assert data.validation.indices.tolist() == validation[:10].tolist()
    present = spec(**SMALLER)
    stratified = build_data(present, images(), choose_tuning(present, images(), "cpu"))
    counts = torch.bincount(stratified.train.labels[stratified.train.indices], minlength=10)
    assert counts.min() >= 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_run_of_either_version_trains_and_its_weights_say_how_images_are_resized(
    version: int, tmp_path: Path
) -> None:
    outcome, _ = run(tmp_path, model={**PLAIN, "input_size": 12}, epochs=1, spec_version=version)
    assert outcome.status == "completed"
    with safe_open(tmp_path / "weights-best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["epochal"])["preprocessing"]["antialias"] == (version == 2)
