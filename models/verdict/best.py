"""Findings on the best epochs, on others that are as good within noise, and on epochs without improvement."""

from dataclasses import dataclass

import numpy as np

from models.curves.statistics import Rise, locate_bottom, measure_rise
from models.findings import BestJson, Finding, FindingCode, Severity
from models.plain import JsonObject
from models.text import duration, number, percent, plural
from models.verdict.curves import Curve, Curves

SURE = 0.975
"""Below this confidence a rise is taken for noise: one level curve in forty would be called wrongly."""
MATERIAL_RISE = 0.02
"""A validation loss that ends less than this part above its lowest level is called level, however sure it is."""


@dataclass(frozen=True)
class Best:
    """The best epoch of one curve. `first` to `last` are the epochs that noise does not tell from it."""

    epoch: int
    value: float
    first: int
    last: int
    after: Rise
    """How the curve went on after it, in the bad direction."""

    @property
    def stands_out(self) -> bool:
        """Whether later epochs are worse by more than noise explains."""
        return self.after.confidence >= SURE

    def as_json(self) -> BestJson:
        """The best epoch as it is stored and sent."""
        return {
            "epoch": self.epoch,
            "value": self.value,
            "as_good": [self.first, self.last],
            "stands_out": self.stands_out,
            "confidence": round(self.after.confidence, 4),
        }


def find_best(curve: Curve, *, largest: bool = False) -> Best | None:
    """The smallest value's epoch (or the largest's); of equal ones the first."""
    if not len(curve):
        return None
    values = -curve.values if largest else curve.values
    index, first, last = locate_bottom(values)
    return Best(
        curve.epoch(index), float(curve.values[index]), curve.epoch(first), curve.epoch(last), measure_rise(values)
    )


def report_best(curves: Curves, by_loss: Best | None, by_accuracy: Best | None) -> list[Finding]:
    """The best epoch by validation loss and by validation accuracy."""
    parts: list[str] = []
    values: JsonObject = {}
    for best, name, show in ((by_accuracy, "accuracy", percent), (by_loss, "loss", number)):
        if best:
            values[f"val_{name}"] = best.value
            values[f"as_good_by_{name}"] = [best.first, best.last]
            values[f"confidence_by_{name}"] = round(best.after.confidence, 4)
            word = "lowest" if name == "loss" else "highest"
            alike = f", though epochs {best.first} to {best.last} are as good within noise" * (best.last > best.first)
            parts.append(f"The {word} validation {name}, {show(best.value)}, is at epoch {best.epoch}{alike}.")
    if not parts:
        return []
    best = by_loss or by_accuracy
    assert best is not None
    if best.stands_out and best.last < curves.last_epoch:
        name = "loss" if by_loss else "accuracy"
        parts.append(f"By {name} the epochs after {best.last} are worse ({how_sure(best.after.confidence)}).")
    epochs = sorted({item.epoch for item in (by_loss, by_accuracy) if item})
    return [
        Finding(
            FindingCode.BEST_EPOCH,
            Severity.INFO,
            " ".join(parts),
            epochs=epochs,
            values=values,
            suggestion="Use the best weights, which are kept beside the last ones, for predictions.",
        )
    ]


def report_wasted(curves: Curves, by_loss: Best | None, by_accuracy: Best | None, *, improving: bool) -> list[Finding]:
    """Epochs after the last one that brought anything."""
    if improving or curves.is_short or (by_loss is None and by_accuracy is None):
        return []
    useful = last_useful_epoch(curves, by_loss, by_accuracy)
    wasted = curves.last_epoch - useful
    if wasted < max(2, round(0.1 * curves.num_epochs)):
        return []
    worse = any(best is not None and best.stands_out for best in (by_loss, by_accuracy))
    if not worse and curves.num_epochs < 10:
        return []
    late = curves.seconds.since(useful + 1)
    seconds = float(late.values.sum()) if len(late) else 0.0
    cost = f" ({duration(seconds)})" if seconds >= 60 else ""
    what = "made the network worse" if worse else "brought no improvement beyond noise"
    if worse and by_accuracy and not by_accuracy.stands_out:
        what = "raised the validation loss again and brought no gain in accuracy beyond noise"
    return [
        Finding(
            FindingCode.WASTED_EPOCHS,
            Severity.WARNING if worse and wasted >= 0.2 * curves.num_epochs else Severity.INFO,
            f"The last {plural(wasted, 'epoch')}{cost} after epoch {useful} {what}.",
            epochs=[useful, curves.last_epoch],
            values={"wasted": wasted, "last_useful_epoch": useful, "seconds": seconds or None},
            suggestion=(
                f"Train for about {plural(useful, 'epoch')}, or set early_stopping with a patience of about "
                f"{max(3, round(0.2 * useful))}."
            ),
        )
    ]


def last_useful_epoch(curves: Curves, by_loss: Best | None, by_accuracy: Best | None) -> int:
    """The epoch after which neither validation curve became better by more than noise."""
    candidates = []
    if by_loss:
        candidates.append(by_loss.epoch if by_loss.stands_out else by_loss.first)
    if by_accuracy:
        base = candidates[0] if candidates else curves.val_accuracy.epoch(0)
        rest = curves.val_accuracy.since(base)
        if measure_rise(rest.values).confidence >= SURE or not by_loss:
            candidates.append(by_accuracy.first)
    return max(candidates)


def rises(best: Best | None) -> bool:
    """Whether a validation loss ends above its lowest level, surely and by an amount that matters."""
    return best is not None and best.stands_out and best.after.amount >= MATERIAL_RISE * abs(best.after.low)


def falls_back(best: Best | None) -> bool:
    """Whether an accuracy ends below its highest level, surely and by half a point or more."""
    return best is not None and best.stands_out and best.after.amount >= 0.005


def level(curve: Curve, count: int = 3) -> float:
    """Where a curve ends: the median of its last few values."""
    return float(np.median(curve.values[-min(count, len(curve)) :]))


def how_sure(confidence: float) -> str:
    """A confidence in words, with the number."""
    if confidence >= 0.99:
        return "more than 99% sure"
    return f"{100 * confidence:.0f}% sure"
