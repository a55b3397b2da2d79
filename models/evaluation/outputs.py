"""A file of the best weights' logits on a split, which a worker stores when a run ends."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from models.errors import CorruptFile
from models.evaluation.calibration import Calibration
from models.plain import JsonObject

SplitName = Literal["validation", "test"]

MAX_BYTES = 32_000_000
"""The most bytes of a split's logits. Of a larger split every second, third, ... image is kept."""
FLOAT_BYTES = 4
HEADER_BYTES = 3000
"""About how long the header is, most of it the numbers of the score of unknown images."""


@dataclass(frozen=True)
class AboutOutputs:
    """The header of the file: split, weights and classes; it can be read without the logits."""

    split: SplitName
    epoch: int
    weights_sha256: str
    """Digest of the weights file that they were computed with: a calibration holds for these weights only."""
    num_images: int
    """Of the whole split."""
    class_names: tuple[str, ...]
    calibration: Calibration | None = None
    """Fitted on the validation split; None in the test split's file, and with too few images."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """Logits (N, K) float32, labels (N,), and the images' positions (N,) in their split, from 0, rising."""

    about: AboutOutputs
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        tensors: dict[str, NDArray[Any]] = {"logits": self.logits, "labels": self.labels, "positions": self.positions}
        return save(tensors, {"epochal": json.dumps(asdict(self.about), sort_keys=True)})


def stride_of(num_images: int, num_classes: int) -> int:
    """1 if all images of a split are kept, 2 if every second is, ..."""
    return max(1, -(-num_images * num_classes * FLOAT_BYTES // MAX_BYTES))


def stored_bytes(num_images: int, num_classes: int) -> int:
    """About how large the file of a split is."""
    kept = -(-num_images // stride_of(num_images, num_classes))
    return kept * (num_classes * FLOAT_BYTES + 16) + HEADER_BYTES


def read_outputs(path: Path) -> Outputs:
    """Read a file that `Outputs.to_bytes` made. Raises CorruptFile if it is gone, damaged or something else."""
    about = read_about(path)
    try:
        tensors = load_file(path)
        found = Outputs(about, tensors["logits"], tensors["labels"], tensors["positions"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _corrupt(path) from error
    num_classes = len(about.class_names)
    fits = (
        found.logits.dtype == np.float32
        and found.logits.ndim == 2
        and found.logits.shape[1] == num_classes > 0
        and found.labels.shape == found.positions.shape == (len(found.logits),)
        and found.labels.dtype == found.positions.dtype == np.int64
        and len(found.labels) > 0
        and 0 <= found.labels.min() <= found.labels.max() < num_classes
        and 0 <= found.positions.min() <= found.positions.max() < about.num_images
        and bool(np.isfinite(found.logits).all())
    )
    if not fits:
        raise _corrupt(path)
    return found


def read_about(path: Path) -> AboutOutputs:
    """Read the header alone. Raises CorruptFile as `read_outputs` does."""
    try:
        with safe_open(path, framework="numpy") as file:
            stored: JsonObject = json.loads(file.metadata()["epochal"])
        calibration = stored.pop("calibration")
        return AboutOutputs(
            **{**stored, "class_names": tuple(map(str, stored["class_names"]))},
            calibration=Calibration.from_json(calibration) if calibration else None,
        )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _corrupt(path) from error


def _corrupt(path: Path) -> CorruptFile:
    return CorruptFile(f"{path.name} is missing, damaged, or no file of a split's outputs")
