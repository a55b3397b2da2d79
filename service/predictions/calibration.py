"""Calibrated probabilities, and whether an image resembles the validation images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import CorruptFile
from models.evaluation.calibration import Calibration, energy
from models.evaluation.outputs import read_about
from models.evaluation.probabilities import softmax
from models.store import Store, artifacts
from models.store.states import ArtifactKind


@dataclass(frozen=True, slots=True)
class Judged:
    """The prediction of one image, computed from its logits."""

    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64] | None
    """None where no temperature was fitted for these weights."""
    energy: float
    known: bool | None
    """Whether the energy is one that 95% of the validation images do not exceed. None without a calibration."""


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


def judge_logits(logits: NDArray[np.floating], calibration: Calibration | None) -> Judged:
    """Probabilities and energy of one image's logits (classes,)."""
    row = np.asarray(logits, np.float64)[None]
    own_energy = float(energy(row)[0])
    return Judged(
        probabilities=softmax(row)[0],
        calibrated=None if calibration is None else softmax(row, calibration.temperature)[0],
        energy=own_energy,
        known=None if calibration is None else own_energy <= calibration.energy_threshold,
    )
