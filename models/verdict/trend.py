"""Findings on runs that still improve at the end, or so slowly that the learning rate must be wrong."""

from dataclasses import dataclass

import numpy as np

from models.curves.statistics import Trend, fit_trend
from models.findings import Finding, FindingCode, Severity
from models.spec.experiment import ExperimentSpec
from models.text import number, percent, plural
from models.verdict.best import Best
from models.verdict.curves import Curve, Curves

MOST_EPOCHS = 10_000
"""No spec may ask for more."""
SURE_TREND = 0.975
"""Two curves are asked, so each must be this sure: together they are wrong about one time in twenty."""


@dataclass(frozen=True)
class LateTrends:
    """The trends of both validation curves over the last part of a run."""

    length: int
    loss: Trend | None
    accuracy: Trend | None
    improving: bool


def measure_late_trends(curves: Curves, by_loss: Best | None) -> LateTrends:
    """The trend of both validation curves over the last third of the run (at least five epochs).

    Improving: one of them surely gets better, by an amount that matters and still does so in the second half of that
    part; the other does not get worse; and the validation loss has not turned.
    """
    length = max(5, curves.num_epochs // 3)
    loss, accuracy = _trend(curves.val_loss, length), _trend(curves.val_accuracy, length)
    turned = by_loss is not None and by_loss.stands_out
    better = _gains(curves.val_loss, length, sign=-1) or _gains(curves.val_accuracy, length, sign=1)
    worse = (loss is not None and loss.confidence_rising > 0.9) or (
        accuracy is not None and accuracy.confidence_falling > 0.9
    )
    return LateTrends(length, loss, accuracy, better and not worse and not turned and curves.broken_from is None)


def _trend(curve: Curve, length: int) -> Trend | None:
    return fit_trend(curve.values, length) if len(curve) >= 4 else None


def _gains(curve: Curve, length: int, *, sign: int) -> bool:
    """Whether this curve gets better at the end (`sign` says which way is better)."""
    if len(curve) < 4:
        return False
    values = sign * curve.values
    whole, half = fit_trend(values, length), fit_trend(values, max(3, length // 2))
    if len(curve) - 1 - int(np.argmax(values)) >= max(2, len(curve) // 6):
        return False  # the best epoch would be among the last ones
    matters = 0.005 * abs(float(values[-1])) if sign < 0 else 0.003
    return whole.confidence_rising >= SURE_TREND and half.confidence_rising >= 0.8 and half.slope * length >= matters


def report_improvement(curves: Curves, late: LateTrends, spec: ExperimentSpec, *, finished: bool) -> list[Finding]:
    """The finding that the run still improves, and whether more epochs or a larger learning rate would help."""
    if not late.improving or curves.last_epoch >= MOST_EPOCHS:
        return []
    parts: list[str] = []
    values: dict[str, float] = {"epochs_considered": late.length}
    if late.loss:
        values["val_loss_change"] = late.loss.change
        values["confidence_by_loss"] = round(late.loss.confidence_falling, 4)
        parts.append(f"the validation loss changed by {_signed(late.loss.change)}")
    if late.accuracy:
        values["val_accuracy_change"] = late.accuracy.change
        values["confidence_by_accuracy"] = round(late.accuracy.confidence_rising, 4)
        parts.append(f"accuracy by {100 * late.accuracy.change:+.1f} points")
    slow = _slow_epochs(curves, late)
    if slow is not None:
        suggestion = "More epochs alone will not be enough: see slow-learning."
    else:
        suggestion = _suggest_longer(curves) if finished else "Let it go on."
    state = "was still improving when training ended" if finished else "is still improving"
    findings = [
        Finding(
            FindingCode.STILL_IMPROVING,
            Severity.INFO,
            f"The network {state}: over the last {plural(late.length, 'epoch')} {' and '.join(parts)}.",
            epochs=[max(1, curves.last_epoch - late.length + 1), curves.last_epoch],
            values=values,
            suggestion=suggestion,
        )
    ]
    if slow is not None:
        findings.append(_slow_finding(curves, slow, spec))
    return findings


def _suggest_longer(curves: Curves) -> str:
    epochs = curves.last_epoch
    more, most = min(round(1.5 * epochs), MOST_EPOCHS), min(2 * epochs, MOST_EPOCHS)
    length = f"{more:,} to {most:,} epochs" if more < most else f"{most:,} epochs"
    if len(curves.lr) and float(curves.lr.values[-1]) < 0.05 * float(curves.lr.values.max()):
        return (
            f"Try {length} with the schedule stretched to match: by the end the "
            "learning rate was close to its lowest value, so more epochs from here would gain little."
        )
    return f"Train longer: {length}."


def _slow_epochs(curves: Curves, late: LateTrends) -> float | None:
    """Epochs that it would take to get half of the way from guessing to perfect at this pace, if that is hopeless."""
    accuracy, loss = curves.val_accuracy, curves.val_loss
    if curves.num_epochs < 5:
        return None
    if len(accuracy) and late.accuracy:
        target, now, pace = (1 + curves.chance) / 2, float(accuracy.values.max()), late.accuracy.slope
        if now > curves.chance + 0.25 * (1 - curves.chance):
            return None
    elif len(loss) and late.loss:
        target, now, pace = -curves.guessing_loss / 2, -float(loss.values.min()), -late.loss.slope
        if now > 0.8 * -curves.guessing_loss:
            return None
    else:
        return None
    needed = (target - now) / pace if pace > 0 else 1e9
    return min(needed, 1e9) if needed > 3 * curves.num_epochs else None


def _slow_finding(curves: Curves, needed: float, spec: ExperimentSpec) -> Finding:
    rate = spec.optimizer.lr
    level = (
        f"accuracy is {percent(float(curves.val_accuracy.values.max()))} after {plural(curves.num_epochs, 'epoch')}"
        if len(curves.val_accuracy)
        else f"the loss is {number(float(curves.val_loss.values.min()))} after {plural(curves.num_epochs, 'epoch')}"
    )
    pace = "hundreds of thousands of" if needed > 2e5 else f"about {float(f'{needed:.1g}'):,.0f}"
    return Finding(
        FindingCode.SLOW_LEARNING,
        Severity.PROBLEM,
        f"Learning is steady but far too slow at a learning rate of {number(rate)}: {level}, and half of what can be "
        f"learned would take {pace} epochs more.",
        epochs=[curves.last_epoch],
        values={"epochs_needed": round(needed), "lr": rate},
        suggestion=(
            "Raise the learning rate 10 to 1,000 times; POST /api/v1/learning-rate-tests finds how far it can go. If a "
            "larger one diverged, look for its cause first: the head's number of classes, the input size, no clipping."
        ),
    )


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"
