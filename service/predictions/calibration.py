"""Calibrated probabilities, and whether an image resembles the validation images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import CorruptFile
from models.evaluation.calibration import Calibration, energy
from models.evaluation.outputs import read_about
from models.evaluation.probabilities import softmax
from models.evaluation.unknown import image_statistics
from models.store import Store, artifacts
from models.store.states import ArtifactKind


@dataclass(frozen=True, slots=True)
class Judged:
    """The prediction of one image, computed from its logits."""

    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64] | None
    """None where no temperature was fitted for these weights."""
    energy: float
    unknown_score: float | None
    """How unlike the validation images the image is. None where nothing was fitted, or by an earlier version."""
    known: bool | None
    """Whether 95% of the validation images have such a score or a higher one; such an energy, where there is no score.
    None without a calibration."""


def find_calibration(
    store: Store, experiment_id: int, weights_sha256: str, experiments_dir: Path
) -> Calibration | None:
    """The calibration fitted for exactly these weights when their run ended; None if missing or unreadable."""
    with store.reading() as session:
        record = artifacts.find(session, experiment_id, ArtifactKind.OUTPUTS_VALIDATION)
    if record is None:
        return None
    try:
        about = read_about(record.file(experiments_dir))
    except CorruptFile:
        return None
    return about.calibration if about.weights_sha256 == weights_sha256 else None


def judge(
    images: Sequence[NDArray[np.uint8]], logits: Sequence[NDArray[np.floating]], calibration: Calibration | None
) -> list[Judged]:
    """Judge images (C, S, S) by their logits (classes,). None depends on the others, to the bit."""
    if not images:
        return []
    rows = np.stack(logits).astype(np.float64)
    probabilities, energies = softmax(rows), energy(rows)
    if calibration is None:
        return [Judged(row, None, one, None, None) for row, one in zip(probabilities, energies.tolist(), strict=True)]
    scores: list[float] | list[None] = [None] * len(rows)
    known = (energies <= calibration.energy_threshold).tolist()
    if (unknown := calibration.unknown) is not None:
        found = unknown.score(image_statistics(np.stack(images)), energies)
        scores, known = found.tolist(), (found <= unknown.threshold).tolist()
    calibrated = softmax(rows, calibration.temperature)
    return list(map(Judged, probabilities, calibrated, energies.tolist(), scores, known))
