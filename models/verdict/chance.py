"""Results no better than guessing: stuck at chance, worse than guessing, and below what guessing gives."""

import math

import numpy as np

from models.curves.statistics import counted_images, fit_trend, typical_wobble
from models.findings import Finding, FindingCode, Severity
from models.spec.experiment import ExperimentSpec
from models.text import number, percent, plural
from models.verdict.curves import Curve, Curves

RAISE = "Raise the learning rate 10 to 1,000 times; POST /api/v1/learning-rate-tests finds how far it can go."


def chance_band(curves: Curves) -> float:
    """How far from 1/classes an accuracy may lie and still be a guess: 3 points, 1 with many classes, and sampling."""
    band = min(0.03, max(0.01, 0.3 * curves.chance))
    size = validation_size(curves.val_accuracy)
    sampling = 2 * math.sqrt(curves.chance * (1 - curves.chance) / size) if size else 0.0
    return max(band, min(sampling, 0.5 * curves.chance))


def at_chance_from(curves: Curves) -> int | None:
    """The first epoch from which accuracy stays at chance to the end; None when it ends elsewhere.

    Single epochs may lie outside by chance, so means of up to five epochs are compared.
    """
    accuracy = curves.val_accuracy
    if not len(accuracy):
        return None
    width = min(5, 1 + len(accuracy) // 4)
    means = np.lib.stride_tricks.sliding_window_view(accuracy.values, width).mean(axis=1)
    inside = np.abs(means - curves.chance) <= chance_band(curves)
    if not inside[-1]:
        return None
    outside = np.flatnonzero(~inside)
    return accuracy.epoch(int(outside[-1]) + width if len(outside) else 0)


def reached_more(curves: Curves) -> bool:
    """Whether the best accuracy is above chance: outside the band, and above the best of so many guesses."""
    accuracy = curves.val_accuracy
    if not len(accuracy):
        return False
    size = validation_size(accuracy) or 2000
    luck = 4 * math.sqrt(curves.chance * (1 - curves.chance) / size)
    return float(accuracy.values.max()) > curves.chance + max(chance_band(curves), luck)


def report_stuck(curves: Curves, spec: ExperimentSpec, *, explain: bool = True) -> list[Finding]:
    """Accuracy at chance for the last half of the run, and a loss no lower than that of guessing.

    `explain` adds what the curves tell of the cause.
    """
    since = at_chance_from(curves)
    if since is None:
        return _stuck_loss(curves)
    if curves.last_epoch - since + 1 < max(1, curves.num_epochs // 2):
        return []
    loss = curves.val_loss.since(since)
    if len(loss) and float(loss.values[-1]) < 0.97 * curves.guessing_loss:
        return []
    few = curves.num_epochs < 3
    level = float(curves.val_accuracy.since(since).values.mean())
    tail = f", for {plural(curves.last_epoch - since + 1, 'epoch')}" if not few else ""
    never = since <= int(curves.epochs[0]) + 1 and not reached_more(curves)
    start = "Nothing was learned" if never else f"From epoch {since} on the network is at chance"
    sentence = (
        f"{start}: accuracy is {percent(level)}, what guessing among {curves.num_classes} classes gives "
        f"({percent(curves.chance)}){tail}."
    )
    cause, suggestion = _cause_and_suggestion(curves, loss, spec) if explain else ("", "")
    return [
        Finding(
            FindingCode.STUCK_AT_CHANCE,
            Severity.WARNING if few else Severity.PROBLEM,
            f"{sentence} {cause}".strip(),
            epochs=[since, curves.last_epoch],
            values={
                "never_learned": never,
                "val_accuracy": level,
                "chance": curves.chance,
                "val_loss": float(loss.values[-1]) if len(loss) else None,
                "loss_of_guessing": curves.guessing_loss,
            },
            suggestion=suggestion,
        )
    ]


def _stuck_loss(curves: Curves) -> list[Finding]:
    """The same from the loss alone, where no accuracy was measured: it stays at ln(classes)."""
    loss = curves.val_loss if len(curves.val_loss) else curves.train_loss
    if len(curves.val_accuracy) or not len(loss):
        return []
    late = loss.values[len(loss) // 2 :]
    if len(loss) < 3 or np.max(np.abs(late - curves.guessing_loss)) > 0.01 * curves.guessing_loss:
        return []
    return [
        Finding(
            FindingCode.STUCK_AT_CHANCE,
            Severity.PROBLEM,
            f"Nothing was learned: the loss stays at {number(float(late.mean()))}, which is ln({curves.num_classes}), "
            "what guessing gives.",
            epochs=[loss.epoch(len(loss) // 2), curves.last_epoch],
            values={"never_learned": True, "val_loss": float(late.mean()), "loss_of_guessing": curves.guessing_loss},
            suggestion="Look for dead outputs, a learning rate far off, or labels that do not belong to the images.",
        )
    ]


def _cause_and_suggestion(curves: Curves, loss: Curve, spec: ExperimentSpec) -> tuple[str, str]:
    """The likely cause in a sentence, and what to try about it."""
    if not len(loss):
        return "", "See the other findings; try a learning rate ten times smaller and ten times larger."
    guessing = f"{number(curves.guessing_loss)}, ln({curves.num_classes})"
    tail = loss.values[-max(2, len(loss) // 2) :]
    last = float(tail[-1])
    equal = abs(last / curves.guessing_loss - 1) < 1e-4
    if len(tail) >= 2 and float(np.ptp(tail)) <= 1e-6 * curves.guessing_loss and equal:
        cause = (
            f"The loss stands still at {guessing}: every image gets the same outputs, so they are dead (a ReLU before "
            "the outputs can do that) and no gradient flows."
        )
        return cause, "Lower the learning rate or warm it up, clip the gradient, and start the head from small weights."
    trend = fit_trend(loss.values, max(5, len(loss) // 2))
    if len(loss) >= 5 and trend.confidence_falling > 0.99 and trend.change < 0:
        rate = number(spec.optimizer.lr)
        cause = (
            f"The loss does fall, but by {number(-trend.slope)} an epoch: the learning rate of {rate} is far too small."
        )
        return cause, RAISE
    if last > 1.2 * curves.guessing_loss:
        cause = (
            f"The loss, {number(last)}, is above the {guessing} of guessing: the network is sure of wrong predictions, "
            "as after a step far too large."
        )
        return cause, "Lower the learning rate ten times and clip the gradient."
    return (
        f"The loss stays near {guessing}.",
        "Try a learning rate ten times smaller and ten times larger (a learning-rate test tells which); check labels.",
    )


LOWER_FIRST = "Try {lr} or less, clip the gradient (clip_grad_norm: 1.0), or run a learning-rate test first."

EXPLODED = 20.0
"""A loss that ends so many times above that of guessing has exploded."""


def report_exploded(curves: Curves, spec: ExperimentSpec) -> list[Finding]:
    """Finite losses far above anything that guessing gives, at the end: the steps were too large."""
    losses = [curve for curve in (curves.val_loss, curves.train_loss) if len(curve)]
    if curves.broken_from is not None or not losses:
        return []
    curve = max(losses, key=lambda one: float(np.median(one.values[-3:])))
    end, first = float(np.median(curve.values[-3:])), float(curve.values[0])
    limit = EXPLODED * curves.guessing_loss
    if end <= limit or (end < first / 2 and len(curve) >= 5 and first < 10 * limit):
        return []  # outputs that start far too large and come down are another matter
    rate = spec.optimizer.lr
    above = np.flatnonzero(curve.values > limit)
    begins = curve.epoch(int(above[0]))
    return [
        Finding(
            FindingCode.LOSS_EXPLODED,
            Severity.PROBLEM,
            f"The loss exploded at a learning rate of {number(rate)}: it stayed finite, but is {number(end)} at the "
            f"end, and guessing among {curves.num_classes} classes gives {number(curves.guessing_loss)}.",
            epochs=[begins],
            values={"loss_at_end": end, "loss_of_guessing": curves.guessing_loss, "lr": rate},
            suggestion=LOWER_FIRST.format(lr=number(rate / 10)),
        )
    ]


def report_worse_than_guessing(curves: Curves, *, exploded: bool) -> list[Finding]:
    """Even the best validation loss is above that of giving every class the same probability."""
    loss = curves.val_loss
    if len(loss) < 2 or exploded:
        return []
    best = float(loss.values.min())
    severity = Severity.WARNING if len(loss) < 5 else Severity.PROBLEM
    if best <= 1.02 * curves.guessing_loss or at_chance_from(curves) == int(curves.epochs[0]):
        return []
    top = float(curves.val_accuracy.values.max()) if len(curves.val_accuracy) else 0.0
    though = (
        f" Predictions are right more often than that, up to {percent(top)}: the wrong ones have far too high "
        "probabilities."
        if top > curves.chance + 3 * chance_band(curves)
        else ""
    )
    return [
        Finding(
            FindingCode.WORSE_THAN_GUESSING,
            severity,
            f"The best validation loss, {number(best)}, is above {number(curves.guessing_loss)}, "
            f"ln({curves.num_classes}), which a network gets that gives every class the same probability.{though}",
            epochs=[loss.epoch(int(np.argmin(loss.values)))],
            values={"val_loss": best, "loss_of_guessing": curves.guessing_loss},
            suggestion=(
                "Lower the learning rate, add weight decay or label smoothing: outputs far too large raise the loss."
                if though
                else "The outputs are far too large or belong to other classes: give the network a new head for "
                f"{curves.num_classes} classes with small weights, check the input size, then the learning rate."
            ),
        )
    ]


def report_below_chance(curves: Curves) -> list[Finding]:
    """Accuracy far below what guessing gives, which takes predictions that cannot be right."""
    accuracy = curves.val_accuracy
    if not len(accuracy):
        return []
    size = validation_size(accuracy) or 2000
    sampling = math.sqrt(curves.chance * (1 - curves.chance) / size)
    noise = typical_wobble(accuracy.values)
    low = np.flatnonzero(accuracy.values < min(curves.chance / 2, curves.chance - 4 * max(sampling, noise)))
    if not len(low):
        return []
    first, count = accuracy.epoch(int(low[0])), len(low)
    worst = float(accuracy.values.min())
    return [
        Finding(
            FindingCode.BELOW_CHANCE,
            Severity.WARNING,
            f"In {plural(count, 'epoch')} from epoch {first} accuracy is far below the {percent(curves.chance)} that "
            f"guessing gives (down to {percent(worst)}): the network answers with classes that the dataset does not "
            "have, or the labels do not belong to the images.",
            epochs=[first, accuracy.epoch(int(low[-1]))],
            values={"lowest": worst, "chance": curves.chance, "epochs_below": count},
            suggestion=f"Check that the head has {curves.num_classes} outputs, in the order of the dataset's classes.",
        )
    ]


def validation_size(accuracy: Curve) -> int | None:
    """The smallest number of images that these accuracies can be fractions of; None when it is above 2,000."""
    return counted_images(accuracy.values)
