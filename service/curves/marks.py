"""Drawing of a verdict's findings behind the curves: the epoch where each begins, with a label."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.findings import FindingCode, VerdictJson
from service.drawing import labels
from service.drawing.canvas import MUTED, WARNING
from service.drawing.plot import Plot
from service.drawing.series import Floats
from service.drawing.sheet import Box

SIZE = 7.5


@dataclass(frozen=True, slots=True)
class Mark:
    """How a finding is drawn: on which plots, with which label, and whether as a span from its epoch on."""

    panels: tuple[str, ...]
    words: str
    lasts: bool = False
    color: str = "#8A8A8A"


MARKS: dict[str, Mark] = {
    FindingCode.OVERFITTING: Mark(("Loss",), "overfitting from epoch {epoch}", lasts=True, color="#D55E00"),
    FindingCode.COLLAPSE: Mark(("Accuracy",), "collapse from epoch {epoch}", lasts=True, color="#D55E00"),
    FindingCode.PASSING_COLLAPSE: Mark(("Accuracy",), "collapse in epoch {epoch}"),
    FindingCode.TRAINING_LOSS_RISING: Mark(("Loss",), "training loss rises from epoch {epoch}"),
    FindingCode.DIVERGENCE: Mark(("Loss", "Accuracy"), "diverged in epoch {epoch}", color=WARNING),
    FindingCode.LR_LOWERED: Mark(("Loss", "Accuracy"), "rate lowered"),
    FindingCode.EARLY_STOPPED: Mark(("Loss", "Accuracy"), "stopped early"),
}


def draw(plot: Plot, panel: str, verdict: VerdictJson | None, epochs: Floats, x: Floats) -> None:
    """Draw the findings of a plot; a verdict of an unknown form is skipped.

    Each has a label above the plot. A finding whose label would touch that of a more severe one, which come first in
    a verdict, is left out.
    """
    taken: list[Box] = []
    for finding in _findings(verdict):
        mark = MARKS.get(str(finding.get("code")))
        epoch = _first_epoch(finding)
        if mark is None or epoch is None or panel not in mark.panels or not len(x):
            continue
        place = float(np.interp(epoch, epochs, x))
        if _write(plot, mark.words.format(epoch=f"{epoch:g}"), place, taken):
            if mark.lasts:
                plot.span(place, _end_of(finding, epochs, x, plot.x.high), color=mark.color, alpha=0.07)
            plot.upright(place, color=mark.color, width=0.9, dash=(1, 2), level=1)


def _end_of(finding: dict[str, Any], epochs: Floats, x: Floats, edge: float) -> float:
    """Return the epoch at which a finding ends (its recovery), or None."""
    values = finding["evidence"].get("values")
    recovered = values.get("recovered") if isinstance(values, dict) else None
    return float(np.interp(recovered, epochs, x)) if isinstance(recovered, int | float) else edge


def _write(plot: Plot, words: str, place: float, taken: list[Box]) -> bool:
    """Write a label above the plot, to the right of the mark if it fits. Returns whether there was space."""
    width, height = labels.text_size(words, SIZE)
    frame = plot.frame
    left = min(plot.across(place), frame.right - width)
    box = Box(left - 4, frame.top, left + width + 4, frame.top + height)
    if any(box.overlaps(other) for other in taken):
        return False
    taken.append(box)
    plot.sheet.words(left, frame.top + 2, words, size=SIZE, color=MUTED)
    return True


def _findings(verdict: VerdictJson | None) -> list[dict[str, Any]]:
    found: Any = verdict.get("findings") if isinstance(verdict, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _first_epoch(finding: dict[str, Any]) -> float | None:
    evidence = finding.get("evidence")
    epochs = evidence.get("epochs") if isinstance(evidence, dict) else None
    numbers = [e for e in epochs if isinstance(e, int | float)] if isinstance(epochs, list) else []
    return float(numbers[0]) if numbers else None
