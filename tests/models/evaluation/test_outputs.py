"""The file of a split's outputs: whole, and refused where it is anything else."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from models.errors import CorruptFile
from models.evaluation.calibration import calibrate
from models.evaluation.outputs import (
    MAX_BYTES,
    AboutOutputs,
    Outputs,
    read_about,
    read_outputs,
    stored_bytes,
    stride_of,
)

LOGITS = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
LABELS = np.arange(120, dtype=np.int64) % 3
STATISTICS = np.random.default_rng(1).normal(size=(120, 8))
FITTED = calibrate(LOGITS, LABELS, STATISTICS)
ABOUT = AboutOutputs("validation", 7, "ab" * 32, 240, ("cat", "d\u00f6g", "fish"), FITTED)
OUTPUTS = Outputs(ABOUT, LOGITS, LABELS, np.arange(120, dtype=np.int64) * 2)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "outputs.safetensors"
    path.write_bytes(OUTPUTS.to_bytes())
    found = read_outputs(path)
    assert found.about == read_about(path) == ABOUT
    assert np.array_equal(found.logits, LOGITS)
    assert np.array_equal(found.labels, LABELS)
    assert np.array_equal(found.positions, OUTPUTS.positions)


def test_the_estimate_is_the_size_of_the_file() -> None:
    assert len(OUTPUTS.to_bytes()) <= stored_bytes(120, 3) <= len(OUTPUTS.to_bytes()) + 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": LOGITS[:, :2]},
        {"logits": LOGITS[:50]},
        {"logits": np.full_like(LOGITS, np.nan)},
        {"logits": LOGITS.astype(np.float64)},
        {"labels": LABELS + 1},
        {"labels": LABELS - 1},
        {"positions": OUTPUTS.positions * 100},
        {"logits": LOGITS[:0], "labels": LABELS[:0], "positions": LABELS[:0]},
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    path = tmp_path / "outputs.safetensors"
    path.write_bytes(replace(OUTPUTS, **changes).to_bytes())
    with pytest.raises(CorruptFile):
        read_outputs(path)


def with_calibration(**changes: Any) -> bytes:
    """The file with another calibration in its header."""
    stored = asdict(ABOUT)
    stored["calibration"] |= changes
    return save({"logits": LOGITS}, {"epochal": json.dumps(stored)})


def test_a_calibration_by_an_earlier_version_has_no_score(tmp_path: Path) -> None:
    path, stored = tmp_path / "outputs.safetensors", asdict(ABOUT)
    del stored["calibration"]["unknown"]
    path.write_bytes(save({"logits": LOGITS}, {"epochal": json.dumps(stored)}))
    assert FITTED is not None
    assert read_about(path).calibration == replace(FITTED, unknown=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"means": [0.0] * 7},
        {"means": None},
        {"means": ["x"] * 8},
        {"scales": [0.0] * 8},
        {"scales": [-1.0] * 8},
        {"scales": [math.nan] * 8},
        {"precision": [1.0] * 63},
        {"precision": [math.inf] * 64},
        {"energy": None},
        {"energy": {"mean": 0.0}},
        {"distance": {"mean": 0.0, "deviation": 0.0}},
        {"threshold": math.nan},
        {"threshold": None},
    ],
)
def test_a_score_that_cannot_be_computed_with_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "outputs.safetensors"
    assert FITTED is not None
    assert FITTED.unknown is not None
    path.write_bytes(with_calibration(unknown={**asdict(FITTED.unknown), **changes}))
    with pytest.raises(CorruptFile):
        read_about(path)
    path.write_bytes(with_calibration(unknown="none"))
    with pytest.raises(CorruptFile):
        read_about(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "outputs.safetensors"
    for content in (b"", b"\xff" * 100, OUTPUTS.to_bytes()[:-10]):
        path.write_bytes(content)
        with pytest.raises(CorruptFile):
            read_outputs(path)
    save_file({"logits": LOGITS}, path)
    with pytest.raises(CorruptFile):
        read_outputs(path)
    with pytest.raises(CorruptFile):
        read_about(tmp_path / "nothing")


def test_of_a_very_large_split_every_nth_image_is_kept() -> None:
    assert stride_of(10_000, 10) == 1
    for num_images, num_classes in ((1_000_000, 10), (1_281_167, 1000), (50_000, 100_000)):
        stride = stride_of(num_images, num_classes)
        assert (num_images // stride) * num_classes * 4 <= MAX_BYTES
