"""Findings on overfitting, a gap between training and validation, and a training loss that itself rises."""

import numpy as np

from models.curves.statistics import locate_bottom, measure_rise
from models.findings import Finding, FindingCode, Severity
from models.spec.experiment import ExperimentSpec
from models.text import number, percent
from models.verdict.best import SURE, Best, falls_back, how_sure, level, rises
from models.verdict.curves import Curve, Curves

GAP_SHARE = 0.5
"""A rise of the validation loss is overfitting when at least this part of it is a growing gap to the training loss."""

HOLD_BACK = (
    "Use the best weights; stop there (early_stopping), or regularise: augmentation, dropout, weight decay, "
    "more images."
)


def report_overfitting(
    curves: Curves, by_loss: Best | None, by_accuracy: Best | None, *, collapsed: bool, training_rises: bool
) -> list[Finding]:
    """The validation loss rises after its minimum, surely, and the training loss does not rise along with it."""
    if by_loss is None:
        return _by_accuracy_alone(curves, by_accuracy)
    if not rises(by_loss):
        return []
    share = _gap_share(curves, by_loss.epoch)
    if share is None and by_accuracy and level(curves.val_accuracy) < (by_accuracy.value + curves.chance) / 2:
        return []  # a collapse; without a training loss nothing says that it is overfitting as well
    if share is not None and share < GAP_SHARE:
        return []
    end = level(curves.val_loss)
    span = f" (between {by_loss.first} and {by_loss.last})" if by_loss.last > by_loss.first else ""
    than_train = ""
    if share is not None and len(curves.train_loss):
        falls = level(curves.train_loss) < curves.train_loss.around(by_loss.epoch) and not training_rises
        than = "while the training loss keeps falling" if falls else "more than the training loss does"
        than_train = f", {than} ({_path(curves.train_loss, by_loss.epoch)})"
    suffers = falls_back(by_accuracy) or collapsed
    small = by_loss.after.amount < 0.05 * by_loss.after.low
    return [
        Finding(
            FindingCode.OVERFITTING,
            Severity.INFO if small and not suffers else Severity.WARNING,
            f"Overfitting begins at about epoch {by_loss.epoch}{span}: the validation loss rises from "
            f"{number(by_loss.value)} to {number(end)}, {how_sure(by_loss.after.confidence)}{than_train}."
            f"{'' if collapsed else _accuracy_words(curves, by_accuracy, suffers=suffers)}",
            epochs=[by_loss.epoch],
            values={
                "onset": by_loss.epoch,
                "onset_range": [by_loss.first, by_loss.last],
                "confidence": round(by_loss.after.confidence, 4),
                "val_loss_at_onset": by_loss.value,
                "val_loss_at_end": end,
                "share_not_in_training_loss": None if share is None else round(share, 3),
            },
            suggestion=HOLD_BACK,
        )
    ]


def _accuracy_words(curves: Curves, by_accuracy: Best | None, *, suffers: bool) -> str:
    if by_accuracy is None:
        return ""
    end = percent(level(curves.val_accuracy))
    if suffers:
        return f" Accuracy falls from {percent(by_accuracy.value)} to {end}."
    return f" Accuracy holds at about {end}: the network grows over-confident, not more often wrong."


def _by_accuracy_alone(curves: Curves, by_accuracy: Best | None) -> list[Finding]:
    """Where no validation loss was measured: accuracy falls back while training keeps improving."""
    if by_accuracy is None or not falls_back(by_accuracy):
        return []
    train = curves.train_loss if len(curves.train_loss) else curves.train_accuracy
    if len(train) < 4:
        return []
    better = train.around(by_accuracy.epoch) - float(train.since(by_accuracy.epoch + 1).values.mean())
    if (better if len(curves.train_loss) else -better) <= 0:
        return []
    return [
        Finding(
            FindingCode.OVERFITTING,
            Severity.WARNING,
            f"Overfitting begins at about epoch {by_accuracy.epoch}: validation accuracy falls from "
            f"{percent(by_accuracy.value)} to {percent(level(curves.val_accuracy))}, "
            f"{how_sure(by_accuracy.after.confidence)}, while training keeps improving.",
            epochs=[by_accuracy.epoch],
            values={
                "onset": by_accuracy.epoch,
                "onset_range": [by_accuracy.first, by_accuracy.last],
                "confidence": round(by_accuracy.after.confidence, 4),
            },
            suggestion=HOLD_BACK,
        )
    ]


def _gap_share(curves: Curves, onset: int) -> float | None:
    """The part of the validation loss's mean rise since the onset that the training loss did not share.

    Where only the training accuracy was measured: all of it if that did not fall, else none.
    """
    train, val = curves.train_loss, curves.val_loss.since(onset + 1)
    later = train.since(onset + 1)
    if not len(val):
        return None
    if len(later) < 2:
        accuracy = curves.train_accuracy
        later = accuracy.since(onset + 1)
        return float(float(later.values.mean()) >= accuracy.around(onset)) if len(later) >= 2 else None
    rise_val = float(val.values.mean()) - curves.val_loss.around(onset)
    rise_train = float(later.values.mean()) - train.around(onset)
    return 1.0 if rise_val <= 0 else 1 - rise_train / rise_val


def _path(curve: Curve, start: int) -> str:
    return f"{number(curve.around(start))} to {number(level(curve))}"


def report_rising_training_loss(curves: Curves, spec: ExperimentSpec) -> list[Finding]:
    """The training loss ends above its lowest level: training itself got worse, which regularisation does not help."""
    curve = curves.train_loss
    if len(curve) < 4:
        return []
    rise = measure_rise(curve.values)
    fallen = max(float(curve.values[0]) - rise.low, 0.0)
    if rise.confidence < SURE or rise.amount < max(0.03 * abs(rise.low), 0.02 * fallen):
        return []
    index, first, last = locate_bottom(curve.values)
    start, end = curve.epoch(index), level(curve)
    rate = spec.optimizer.lr
    lower = f"a learning rate of {number(rate / 3)} to {number(rate / 10)} instead of {number(rate)}"
    return [
        Finding(
            FindingCode.TRAINING_LOSS_RISING,
            Severity.WARNING,
            f"From epoch {start} on the training loss itself rises, from {number(float(curve.values[index]))} to "
            f"{number(end)}. That part is not overfitting: the steps are too large at this stage of training.",
            epochs=[start, curves.last_epoch],
            values={
                "begins": start,
                "begins_range": [curve.epoch(first), curve.epoch(last)],
                "confidence": round(rise.confidence, 4),
                "train_loss_lowest": float(curve.values[index]),
                "train_loss_at_end": end,
            },
            suggestion=f"Try {lower}, or a schedule that lowers it (exponential with gamma 0.95, or cosine).",
        )
    ]


def report_gap(curves: Curves, spec: ExperimentSpec) -> list[Finding]:
    """How much better the network does on the images it learned from, at the end."""
    if curves.is_short:
        return []
    accuracy_gap = _end_gap(curves.train_accuracy, curves.val_accuracy)
    loss_gap = None if _losses_differ(spec) else _end_gap(curves.val_loss, curves.train_loss)
    train_loss = level(curves.train_loss) if len(curves.train_loss) else 0.0
    wide_loss = loss_gap is not None and loss_gap > max(0.1, 0.25 * train_loss)
    wide_accuracy = accuracy_gap is not None and accuracy_gap > 0.05
    if spec.augmentation.mixup_alpha:
        wide_accuracy = False
    if not (wide_loss or wide_accuracy):
        return []
    parts = []
    if loss_gap is not None:
        parts.append(f"a loss of {number(level(curves.val_loss))} on validation images against {number(train_loss)}")
    if accuracy_gap is not None:
        parts.append(
            f"an accuracy of {percent(level(curves.val_accuracy))} against {percent(level(curves.train_accuracy))}"
        )
    large = (accuracy_gap or 0) > 0.15 or (loss_gap is not None and loss_gap > train_loss)
    return [
        Finding(
            FindingCode.GENERALISATION_GAP,
            Severity.WARNING if large else Severity.INFO,
            f"The network does better on the images it learned from: {' and '.join(parts)} on training images.",
            epochs=[curves.last_epoch],
            values={"loss_gap": loss_gap, "accuracy_gap": accuracy_gap},
            suggestion="More augmentation, dropout or weight decay narrow the gap; so do more images.",
        )
    ]


def _end_gap(high: Curve, low: Curve) -> float | None:
    """The mean difference over the last few epochs that have both."""
    common = np.intersect1d(high.epochs, low.epochs)[-3:]
    if not len(common):
        return None
    return float(np.mean([(high.at(int(epoch)) or 0.0) - (low.at(int(epoch)) or 0.0) for epoch in common]))


def _losses_differ(spec: ExperimentSpec) -> bool:
    """Whether the training loss measures something else than the validation loss does.

    Both are plain cross-entropies, whatever smoothing or class weights training minimises; but mixed images are harder.
    """
    return bool(spec.augmentation.mixup_alpha)
