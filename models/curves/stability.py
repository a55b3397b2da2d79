"""Measures the stability of validation curves, from 0 to 1, and compares that of two experiments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from models.curves.metrics import EpochMetrics
from models.curves.statistics import Array, bending_allowance, fit_valley, neighbour_noise

WOBBLE_ACCURACY = 0.02
"""An accuracy that wobbles by two points from epoch to epoch halves the figure."""
WOBBLE_LOSS = 0.06
"""So does a loss that wobbles by 6%."""
CLEAR = 0.975
"""The confidence from which a difference is reported, in either direction."""


@dataclass(frozen=True)
class Stability:
    """1 is a curve that goes one way, or turns once, without a wobble, and keeps what it reached.

    score = kept / (1 + wobble), where `wobble` is the mean of the accuracy's wobble over two points and the loss's over
    6%. Each is the standard deviation around the best fit that turns at most once, or that around the neighbours' line
    where it is larger; `kept` is the part of the best level's gain over chance that was left at the end.
    """

    score: float
    wobble: float
    wobble_accuracy: float | None
    wobble_loss: float | None
    kept: float
    doubt: float
    """Standard error of `score`."""

    def as_json(self) -> dict[str, float | None]:
        """Rounded, for JSON."""
        return {
            name: round(value, 4) if value is not None and math.isfinite(value) else None
            for name, value in vars(self).items()
        }


class StabilityComparison(TypedDict):
    """Which of two histories is the more stable; None in all but the sentence where one is too short to tell."""

    difference: float | None
    """The second's score minus the first's."""
    confidence: float | None
    """How sure it is that the difference has this sign, from 0.5 to 1."""
    more_stable: int | None
    """0 for the first, 1 for the second, None where neither clearly is."""
    sentence: str


def measure_stability(history: Sequence[EpochMetrics], num_classes: int) -> Stability | None:
    """The stability of a history's validation curves; None with fewer than four epochs. 0 if it ended non-finite."""
    losses, accuracies = _finite(history, "val_loss"), _finite(history, "val_accuracy")
    if len(history) < 4:
        return None
    broken = not _is_finite(history[-1].val_loss) and (len(losses) > 0 or not _is_finite(history[-1].train_loss))
    if len(losses) < 4 and len(accuracies) < 4:
        return Stability(0.0, math.inf, None, None, 0.0, 0.0) if broken else None
    off_accuracy = _wobble_of(accuracies) if len(accuracies) >= 4 else None
    off_loss = _wobble_of(np.log(np.maximum(losses, 1e-12))) if len(losses) >= 4 else None
    kept, kept_doubt = _kept(accuracies, 1 / max(num_classes, 2), off_accuracy or 0.0)
    parts = [off / unit for off, unit in ((off_accuracy, WOBBLE_ACCURACY), (off_loss, WOBBLE_LOSS)) if off is not None]
    wobble = sum(parts) / len(parts)
    # A standard deviation from n correlated residuals is itself uncertain by about 1/sqrt(n).
    wobble_doubt = math.hypot(*parts) / len(parts) / math.sqrt(max(len(accuracies), len(losses)))
    score = 0.0 if broken else kept / (1 + wobble)
    doubt = math.hypot(kept_doubt / (1 + wobble), score * wobble_doubt / (1 + wobble))
    return Stability(score, wobble, off_accuracy, off_loss, 0.0 if broken else kept, 0.0 if broken else doubt)


def compare_stability(
    first: Stability | None, second: Stability | None, names: tuple[str, str] = ("the first", "the second")
) -> StabilityComparison:
    """Which of two histories is the more stable, and how sure that is.

    `more_stable` is 0 for the first, 1 for the second, None when the difference is within its doubt or below 0.02.
    """
    if first is None or second is None:
        short = names[0] if first is None else names[1]
        text = f"{_sentence(short)} has fewer than four epochs, too few to measure how stable it is."
        return {"difference": None, "confidence": None, "more_stable": None, "sentence": text}
    difference = second.score - first.score
    doubt = max(math.hypot(first.doubt, second.doubt), 1e-6)
    confidence = 0.5 * (1 + math.erf(abs(difference) / doubt / math.sqrt(2)))
    clear = confidence >= CLEAR and abs(difference) >= 0.02
    winner = int(difference > 0) if clear else None
    verdict = "Neither is clearly" if winner is None else f"{_sentence(names[winner])} is"
    return {
        "difference": round(difference, 4),
        "confidence": round(confidence, 4),
        "more_stable": winner,
        "sentence": (
            f"{verdict} the more stable: stability {first.score:.2f} against {second.score:.2f} "
            f"({100 * confidence:.0f}% sure)."
        ),
    }


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _finite(history: Sequence[EpochMetrics], name: str) -> Array:
    return np.array([getattr(metrics, name) for metrics in history if _is_finite(getattr(metrics, name))], dtype=float)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _wobble_of(values: Array) -> float:
    """The standard deviation of a curve around its own shape.

    The shape is the best fit that turns at most once, whichever way it turns. Where the curve is steep the fit hides
    noise, which the neighbours' differences still show; single spikes show in the fit alone. So the larger one counts.
    """
    valley, hill = fit_valley(values), fit_valley(-values)
    off_valley, off_hill = values - valley.fit, values + hill.fit
    better, off = (valley, off_valley) if off_valley @ off_valley <= off_hill @ off_hill else (hill, off_hill)
    around_fit = _rms(off) * bending_allowance(better.num_levels / len(values))
    if len(values) < 8:  # too few for the neighbours' differences to tell noise from a bend
        return around_fit
    return max(around_fit, _rms(neighbour_noise(values, max(9, len(values) // 3))))


def _kept(accuracies: Array, chance: float, wobble: float) -> tuple[float, float]:
    """The fraction of the best level's gain over chance that was left at the end, and its standard error.

    Both levels are read off the best rising-then-falling fit. Where the gain is too small to speak of, nothing could be
    lost.
    """
    if len(accuracies) < 4:
        return 1.0, 0.0
    hill = -fit_valley(-accuracies).fit
    gain = float(hill.max()) - chance
    if gain <= max(0.05, 3 * wobble):
        return 1.0, 0.0
    return float(np.clip((float(hill[-1]) - chance) / gain, 0, 1)), 0.8 * wobble / gain


def _rms(values: Array) -> float:
    return math.sqrt(float(np.mean(values**2)))
