"""A finding on validation curves that fluctuate from one epoch to the next."""

from models.curves.stability import Stability
from models.findings import Finding, FindingCode, Severity
from models.text import percent
from models.verdict.curves import Curves

NOTED = (0.01, 0.03)
"""Wobble of accuracy, and of the loss as a part of itself, from which it is mentioned."""
WARNED = (0.03, 0.10)
"""The same, from which it is a warning: it hides differences between experiments."""


def report_oscillation(curves: Curves, stability: Stability | None) -> list[Finding]:
    """The finding: fluctuation that makes single epochs' figures unreliable."""
    if stability is None or curves.broken_from is not None:
        return []
    accuracy, loss = stability.wobble_accuracy or 0.0, stability.wobble_loss or 0.0
    if accuracy < NOTED[0] and loss < NOTED[1]:
        return []
    strong = accuracy >= WARNED[0] or loss >= WARNED[1]
    parts = []
    if stability.wobble_accuracy is not None:
        parts.append(f"accuracy by {100 * accuracy:.1f} points")
    if stability.wobble_loss is not None:
        parts.append(f"the loss by {percent(loss)}")
    word = "swing widely" if strong else "wobble"
    return [
        Finding(
            FindingCode.OSCILLATION,
            Severity.WARNING if strong else Severity.INFO,
            f"The validation curves {word} from epoch to epoch: {' and '.join(parts)} (stability {stability.score:.2f} "
            "of 1). The best value of a single epoch may be better by chance by as much.",
            epochs=[],
            values=stability.as_json(),
            suggestion=(
                "A smaller learning rate, a schedule that lowers it, a larger batch or weight averaging (ema_decay) "
                "calm it."
            ),
        )
    ]
