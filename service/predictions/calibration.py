"""Finds the calibration that was fitted for weights."""

from pathlib import Path

from models.errors import CorruptFile
from models.evaluation.calibration import Calibration
from models.evaluation.outputs import read_about
from models.store import Store, artifacts
from models.store.states import ArtifactKind


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
