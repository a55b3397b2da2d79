"""How stable an experiment's curves are, as a figure from 0 to 1 by which two experiments can be compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.curve_statistics import Array, fit_valley
from models.metrics import EpochMetrics

WOBBLE_ACCURACY = 0.02
"""An accuracy that wobbles by two points from epoch to epoch halves the figure."""
WOBBLE_LOSS = 0.06
"""So does a loss that wobbles by 6%."""
RESAMPLES = 400


@dataclass(frozen=True)
class Stability:
    """1 is a curve that goes one way, or turns once, without a wobble, and keeps what it reached.

    score = kept / (1 + wobble), where `wobble` is the mean of the accuracy's wobble over two points and the loss's over
    6%, each the root mean square distance from the best fit that turns at most once; `kept` is the part of the best
    accuracy's gain over chance that was left at the end.
    """

    score: float
    wobble: float
    wobble_accuracy: float | None
    wobble_loss: float | None
    kept: float
    doubt: float
    """Standard error of `score`, from resampling the epochs' distances."""

    def as_json(self) -> dict[str, Any]:
        """Rounded, for JSON."""
        items = {name: getattr(self, name) for name in self.__slots__} if hasattr(self, "__slots__") else vars(self)
        return {name: None if value is None else round(value, 4) for name, value in items.items()}


def measure_stability(history: Sequence[EpochMetrics], num_classes: int) -> Stability | None:
    """The stability of a history's validation curves; None with fewer than four epochs. 0 if it ended non-finite."""
    losses, accuracies = _finite(history, "val_loss"), _finite(history, "val_accuracy")
    if len(history) < 4:
        return None
    if len(losses) < 4 and len(accuracies) < 4:
        return Stability(0.0, math.inf, None, None, 0.0, 0.0) if len(losses) < len(history) - 1 else None
    off_loss = _distances(np.log(np.maximum(losses, 1e-12))) if len(losses) >= 4 else None
    off_accuracy = _distances(accuracies) if len(accuracies) >= 4 else None
    ended = history[-1].val_loss
    broken = len(losses) > 0 and (ended is None or not math.isfinite(ended))
    kept = 0.0 if broken else _kept(accuracies, 1 / max(num_classes, 2))
    wobble = _wobble(off_accuracy, off_loss)
    return Stability(
        kept / (1 + wobble),
        wobble,
        None if off_accuracy is None else _rms(off_accuracy),
        None if off_loss is None else _rms(off_loss),
        kept,
        kept * _doubt(off_accuracy, off_loss),
    )


def compare_stability(a: Sequence[EpochMetrics], b: Sequence[EpochMetrics], num_classes: int) -> dict[str, Any]:
    """Which of two histories is the more stable, and how sure that is.

    `more_stable` is "a", "b" or None when the difference is within its doubt (95%) or smaller than 0.02.
    """
    first, second = measure_stability(a, num_classes), measure_stability(b, num_classes)
    if first is None or second is None:
        short = "The first" if first is None else "The second"
        return {
            "a": first and first.as_json(),
            "b": second and second.as_json(),
            "difference": None,
            "confidence": None,
            "more_stable": None,
            "sentence": f"{short} history has fewer than four epochs, too few to measure how stable it is.",
        }
    difference = second.score - first.score
    doubt = max(math.hypot(first.doubt, second.doubt), 1e-6)
    confidence = 0.5 * (1 + math.erf(abs(difference) / doubt / math.sqrt(2)))
    clear = confidence >= 0.95 and abs(difference) >= 0.02
    winner = ("b" if difference > 0 else "a") if clear else None
    names = {"a": "The first is", "b": "The second is"}
    verdict = f"{names[winner]} the more stable" if winner else "Neither is clearly the more stable"
    return {
        "a": first.as_json(),
        "b": second.as_json(),
        "difference": round(difference, 4),
        "confidence": round(confidence, 4),
        "more_stable": winner,
        "sentence": (
            f"{verdict}: stability {first.score:.2f} against {second.score:.2f} ({100 * confidence:.0f}% sure)."
        ),
    }


def _finite(history: Sequence[EpochMetrics], name: str) -> Array:
    values = [getattr(metrics, name) for metrics in history]
    return np.array([value for value in values if value is not None and math.isfinite(value)], dtype=np.float64)


def _distances(values: Array) -> Array:
    """How far each value lies from the best fit that turns at most once, whichever way it turns."""
    valley, hill = values - fit_valley(values).fit, values + fit_valley(-values).fit
    return valley if float(valley @ valley) <= float(hill @ hill) else hill


def _kept(accuracies: Array, chance: float) -> float:
    """What was left at the end of the best level's gain over chance, both read off the best rising-then-falling fit.

    Where the gain is too small to speak of, nothing could be lost.
    """
    if len(accuracies) < 4:
        return 1.0
    hill = -fit_valley(-accuracies).fit
    gain = float(hill.max()) - chance
    if gain <= max(0.05, 3 * _rms(accuracies - hill)):
        return 1.0
    return float(np.clip((float(hill[-1]) - chance) / gain, 0, 1))


def _wobble(off_accuracy: Array | None, off_loss: Array | None) -> float:
    parts = []
    if off_accuracy is not None:
        parts.append(_rms(off_accuracy) / WOBBLE_ACCURACY)
    if off_loss is not None:
        parts.append(_rms(off_loss) / WOBBLE_LOSS)
    return sum(parts) / len(parts)


def _rms(values: Array) -> float:
    return math.sqrt(float(np.mean(values**2)))


def _doubt(off_accuracy: Array | None, off_loss: Array | None) -> float:
    """Standard deviation of 1 / (1 + wobble) when the epochs are drawn again."""
    rng = np.random.default_rng(0)
    total = np.zeros(RESAMPLES)
    parts = [(off_accuracy, WOBBLE_ACCURACY), (off_loss, WOBBLE_LOSS)]
    for off, unit in parts:
        if off is not None:
            picks = rng.integers(0, len(off), size=(RESAMPLES, len(off)))
            total += np.sqrt(np.mean(off[picks] ** 2, axis=1)) / unit
    return float(np.std(1 / (1 + total / sum(off is not None for off, _ in parts))))
