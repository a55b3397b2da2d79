"""The prediction for an image, from its network's logits: the same for the lab and for `epochal classify --csv`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import Conflict
from models.evaluation.calibration import Calibration, energy
from models.evaluation.probabilities import softmax
from models.evaluation.unknown import image_statistics


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

    def top(self, count: int) -> list[tuple[int, float, float | None]]:
        """The most probable classes, best first: their numbers, probabilities and calibrated probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        calibrated = [None] * len(order) if self.calibrated is None else self.calibrated[order].tolist()
        return list(zip(order.tolist(), self.probabilities[order].tolist(), calibrated, strict=True))


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


class NotFinite(Conflict):
    """Weights that have diverged: their logits are not finite."""


def check_finite(logits: Sequence[NDArray[np.floating]], which: str, experiment_id: int) -> None:
    """Refuse logits of weights that have diverged. Raises NotFinite."""
    if logits and not np.isfinite(np.stack(logits)).all():
        raise NotFinite(
            f"the {which} weights of experiment {experiment_id} give no finite prediction",
            fix="train at a lower learning rate",
        )
