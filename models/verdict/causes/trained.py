"""Causes of a poor result in how a network began and how it was trained."""

import math

from models.findings import Finding, FindingCode, Severity
from models.plain import path_of, walk
from models.spec.experiment import ExperimentSpec
from models.text import number, percent, plural
from models.verdict.best import level
from models.verdict.causes.evidence import Evidence
from models.verdict.chance import chance_band
from models.verdict.curves import Curve

LEARN_TEST = "POST /api/v1/learning-rate-tests finds a rate that works."
HARDLY_ANY = 1e-3
"""The gradient that reaches the first layer, as a part of its weights, over the same for the last layer."""
HIGH_MOMENTUM = 0.98
"""From here on a step sums more than 50 gradients; 0.9 sums 10, and few trainings use more than 0.95."""
STILL = 0.02
"""Layers that moved by less than this part of their norm have hardly been trained."""
HUGE_STEP = 0.3
"""A step that changes weights by this part of their norm replaces them within a few steps."""
WORSENED = 1.1
"""A training loss whose mean over the first epoch is so far above guessing: the first steps made the network worse."""
HARDER = 0.75
"""Of what the network knows of validation images, so much is left of it on augmented training images."""
FEWEST_EPOCHS = 6
"""Accuracies rise most in the first epochs; the last three are judged once as many lie before them."""
MOST_DROPOUT = 0.3
"""From here on training images may be classified worse for it: dropout is on while they are measured."""


def dead_layer(evidence: Evidence) -> Finding | None:
    """A layer that was silent for every image before training, so that nothing behind it depends on the image."""
    silent = [name for name, layer in evidence.beginning.layers.items() if layer.silent]
    if not silent or not _poor(evidence):
        return None
    return Finding(
        FindingCode.DEAD_LAYER,
        Severity.PROBLEM,
        f"{silent[0]} was dead before training: its ReLUs were zero for every image, so all images gave the same "
        "outputs, and no gradient passes such a layer.",
        values={"layers": silent[:50]},
        suggestion="Start its biases at 0 and its weights from torch's own initialisation.",
    )


def vanishing_gradients(evidence: Evidence) -> Finding | None:
    """Hardly any gradient reached the first layer before training, and nothing was learned."""
    layers = [layer for layer in evidence.beginning.layers.values() if layer.weight_norm > 0]
    if len(layers) < 3 or not _unlearned(evidence):
        return None
    first, last = (layer.gradient_norm / layer.weight_norm for layer in (layers[0], layers[-1]))
    if not 0 < first < HARDLY_ANY * last:
        return None
    return Finding(
        FindingCode.VANISHING_GRADIENTS,
        Severity.PROBLEM,
        f"Gradients vanish on their way through {plural(len(layers), 'layer')}: before training, the one that reached "
        f"the first layer was, beside its weights, {number(first / last)} times that of the last layer. Outputs "
        f"differed by {number(evidence.beginning.output_spread)} from image to image.",
        values={"first": first, "last": last, "output_spread": evidence.beginning.output_spread},
        suggestion="Add batch normalisation after the convolutions, or use fewer layers or residual connections.",
    )


def momentum_too_high(evidence: Evidence) -> Finding | None:
    """A momentum that sums very many gradients, and too large steps, a poor result, or sums over whole epochs."""
    momentum = evidence.momentum
    if momentum < HIGH_MOMENTUM:
        return None
    rate, sums = evidence.spec.optimizer.lr, 1 / (1 - momentum)
    if not (_poor(evidence) or evidence.largest_step > HUGE_STEP or sums >= evidence.steps_per_epoch):
        return None
    return Finding(
        FindingCode.MOMENTUM_TOO_HIGH,
        Severity.PROBLEM,
        f"The momentum of {momentum:g} is too high: each step follows the last {sums:,.0f} gradients or so, and an "
        f"epoch has {plural(evidence.steps_per_epoch, 'step')}. The network overshoots: gradients of weights that it "
        "no longer has outweigh those of its present ones.",
        values={"momentum": momentum, "lr": rate, "gradients": round(sums)},
        suggestion="Use a momentum of 0.9, or a learning rate smaller by the same factor.",
    )


def lr_too_high(evidence: Evidence) -> Finding | None:
    """Steps that replace the weights, and a result that shows it."""
    largest = evidence.largest_step
    silent = _silent_now(evidence)
    poor = evidence.at_chance and (bool(silent) or _above_guessing(evidence))
    if not (evidence.broke or poor or (largest > HUGE_STEP and _poor(evidence))):
        return None
    rate = evidence.spec.optimizer.lr
    how = (
        "the loss grew without bound"
        if evidence.broke
        else f"every ReLU of {silent[0]} has become zero for every image"
        if silent
        else "the loss ended above that of guessing"
        if _above_guessing(evidence)
        else "what was learned was lost again"
    )
    lowered = FindingCode.LR_LOWERED in evidence.symptoms  # training went on at a rate that may be right
    return Finding(
        FindingCode.LR_TOO_HIGH,
        Severity.WARNING if lowered else Severity.PROBLEM,
        f"The learning rate of {number(rate)} is too high: {how}. The first steps changed a layer's weights by "
        f"{percent(largest)} of their norm.",
        values={"lr": rate, "largest_step": largest},
        suggestion=f"Try {number(rate / 10)} or less. {LEARN_TEST}",
    )


def lr_too_low(evidence: Evidence) -> Finding | None:
    """Weights that hardly moved, and a loss that is still high."""
    movement = evidence.movement
    if not movement or evidence.spec.model.starts_pretrained or max(movement.values()) >= STILL:
        return None
    if evidence.curves.is_short or not _unlearned(evidence):
        return None
    rate, moved = evidence.spec.optimizer.lr, max(movement.values())
    return Finding(
        FindingCode.LR_TOO_LOW,
        Severity.PROBLEM,
        f"The learning rate of {number(rate)} is too low: no layer's weights moved by more than {percent(moved)} of "
        "their norm.",
        values={"lr": rate, "largest_movement": moved},
        suggestion=f"Try one 10 to 1,000 times as high. {LEARN_TEST}",
    )


def destructive_augmentation(evidence: Evidence) -> Finding | None:
    """Augmented training images are classified much worse than validation images, which are not augmented.

    By more than counting so few validation images explains, and at the same time: the training accuracy is that of the
    epoch as it goes on, so it is compared with the mean of the validation accuracies before and after it.
    """
    spec, curves = evidence.spec.augmentation, evidence.curves
    if spec == type(spec)() or spec.mixup_alpha or curves.num_epochs < FEWEST_EPOCHS:
        return None
    if _most_dropout(evidence.spec) >= MOST_DROPOUT:
        return None
    train, val = evidence.gain(curves.train_accuracy), evidence.gain(_between_epochs(curves.val_accuracy))
    if train is None or val is None:
        return None
    rate = level(curves.val_accuracy)
    error = math.sqrt(max(0.0, rate * (1 - rate)) / max(1, evidence.beginning.num_val_images)) / (1 - curves.chance)
    if val - error <= 0.02 or train > HARDER * (val - error):
        return None
    return Finding(
        FindingCode.DESTRUCTIVE_AUGMENTATION,
        Severity.WARNING,
        "Augmentation destroys what distinguishes the classes: the network classifies "
        f"{percent(level(evidence.curves.train_accuracy))} of the augmented training images correctly, and "
        f"{percent(level(evidence.curves.val_accuracy))} of validation images, which it never saw.",
        values={"train_gain": round(train, 4), "val_gain": round(val, 4)},
        suggestion="Use weaker augmentation; hflip 0.5 and shift_pixels 2 to 4 rarely harm photographs.",
    )


def _between_epochs(curve: Curve) -> Curve:
    """The mean of each value and the one before it: the curve half an epoch earlier."""
    return Curve(curve.epochs[1:], (curve.values[1:] + curve.values[:-1]) / 2)


def _most_dropout(spec: ExperimentSpec) -> float:
    """The largest dropout probability that the spec names."""
    found = [
        value
        for value, place, _ in walk(spec.model.model_dump())
        if isinstance(value, float) and "dropout" in map(str, path_of(place))
    ]
    return max(found, default=0.0)


def _silent_now(evidence: Evidence) -> list[str]:
    layers = evidence.filters.convolutions
    return [name for name, layer in layers.items() if len(layer.dead) == layer.num_filters]


def _poor(evidence: Evidence) -> bool:
    bad = {FindingCode.TRAINING_LOSS_RISING, FindingCode.WORSE_THAN_GUESSING, FindingCode.COLLAPSE}
    first = evidence.curves.train_loss.values[:1]
    worsened = bool(len(first)) and float(first[0]) > WORSENED * evidence.curves.guessing_loss
    return evidence.at_chance or evidence.broke or worsened or bool(evidence.symptoms & bad)


def _above_guessing(evidence: Evidence) -> bool:
    loss = evidence.curves.val_loss
    return bool(len(loss)) and level(loss) > 1.02 * evidence.curves.guessing_loss


def _unlearned(evidence: Evidence) -> bool:
    """Whether little was learned: the loss is close to that of guessing."""
    loss, accuracy = evidence.curves.val_loss, evidence.curves.val_accuracy
    if len(loss):
        return level(loss) > 0.9 * evidence.curves.guessing_loss
    return bool(len(accuracy)) and level(accuracy) < evidence.curves.chance + 3 * chance_band(evidence.curves)
