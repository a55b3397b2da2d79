"""Mistakes in what training was given: images, labels, inputs, the head, and layers that are not trained."""

import math

from models.evaluation.doubts import LabelDoubts
from models.findings import Finding, FindingCode, Severity
from models.text import number, percent, plural
from models.verdict.best import level
from models.verdict.causes.evidence import Evidence

FEW_CLASSES = 0.6
"""A batch has less than this part of the classes that a random batch has: the images come in an order."""
LARGEST_INPUT, SMALLEST_INPUT = 10.0, 0.02
"""Normalised inputs have a mean near 0 and a standard deviation near 1."""
SHARED = 0.02
"""With a smaller part of the validation images shared, accuracy is too high by less than this."""
FEWEST_SHARED = 3
FEWEST_CLASSES = 4
"""With fewer, an unlikely label is no more than a wrong one."""
NOISY, CLEARLY_NOISY = 0.12, 0.2
"""A part of wrong labels below this costs little accuracy, and common mistakes of networks look like it, those of a
network that has learned little more so."""
MOST_NOISE = 0.5
"""Where more labels look wrong, the network has learned too little: to a guess half of all labels are unlikely."""
SURE_OF_RIGHT, LEARNED_LITTLE = 0.65, 0.5
"""Of the images whose labels are right, so many are classified correctly among those that the network is surest of, if
it has learned a lot, or little. If it has learned less, it cannot tell a wrong label."""
MISTAKES_UNLIKELY = 0.22
"""Of the mistakes that a network makes about clean labels, about a fifth is of a label in the less likely half, however
little it has learned; of those about labels at random half. It has to be more than this by a standard error."""
MEMORISED = 0.85
WIDE_GAP = 0.2
FLOAT_STEP = 1e-6
"""A smaller step, as a part of the weights, may be lost in the rounding of 32-bit floats."""
FEW_IMAGES = 100
"""Training images a class: with fewer, a network memorises them before it learns the classes."""


def not_shuffled(evidence: Evidence) -> Finding | None:
    """Batches hold few classes."""
    found, expected = evidence.beginning.classes_per_batch, evidence.beginning.classes_expected
    if expected < 2 or found > FEW_CLASSES * expected:
        return None
    return Finding(
        FindingCode.NOT_SHUFFLED,
        Severity.PROBLEM,
        f"The training images are not shuffled: a batch holds {found:.1f} classes, and one drawn at random would hold "
        f"{expected:.1f}. The network forgets each class while it sees the next.",
        values={"classes_per_batch": found, "expected": expected},
        suggestion="Shuffle the images in every epoch.",
    )


def wrong_head(evidence: Evidence) -> Finding | None:
    """More outputs than classes."""
    outputs, classes = evidence.beginning.num_outputs, evidence.curves.num_classes
    if outputs <= classes:
        return None
    guessing = evidence.curves.guessing_loss
    return Finding(
        FindingCode.WRONG_HEAD,
        Severity.WARNING,
        f"The network has {outputs:,} outputs for {classes:,} classes: its first loss is "
        f"{number(evidence.beginning.loss)}, and guessing among the classes would give {number(guessing)}. The first "
        "gradients are large for it, which can destroy a network at a learning rate that is otherwise right.",
        values={"outputs": outputs, "classes": classes, "first_loss": evidence.beginning.loss},
        suggestion=f"Replace the last layer by one with {classes:,} outputs.",
    )


def inputs_not_normalised(evidence: Evidence) -> Finding | None:
    """Inputs on another scale."""
    mean, std = evidence.beginning.input_mean, evidence.beginning.input_std
    if max(abs(mean), std) < LARGEST_INPUT and std > SMALLEST_INPUT:
        return None
    return Finding(
        FindingCode.INPUTS_NOT_NORMALISED,
        Severity.WARNING,
        f"The network's inputs are not normalised: their mean is {number(mean)} and their standard deviation "
        f"{number(std)}, where about 0 and 1 are usual. Activations and gradients are off by as much.",
        values={"mean": mean, "std": std},
        suggestion="Divide pixels by 255, subtract the training images' mean and divide by their standard deviation.",
    )


def contaminated_validation(evidence: Evidence) -> Finding | None:
    """Validation images that are training images."""
    shared, images = evidence.beginning.shared_images, evidence.beginning.num_val_images
    if shared is None or shared < max(FEWEST_SHARED, SHARED * images):
        return None
    return Finding(
        FindingCode.CONTAMINATED_VALIDATION,
        Severity.PROBLEM,
        f"{shared:,} of {plural(images, 'validation image')} ({percent(shared / images)}) are training images too: "
        "validation accuracy is too high, since it counts images that the network has learned.",
        values={"shared": shared, "images": images},
        suggestion="Remove the copies from the dataset, or give copies a common group and split by group.",
    )


def label_noise(evidence: Evidence) -> Finding | None:
    """Labels that are found least likely, on images that the network is sure of.

    A wrong label drawn at random is in the less likely half of the classes half of the time, a right one hardly ever.
    """
    if evidence.beginning.num_train_images < FEW_IMAGES * evidence.curves.num_classes:
        return None  # a network that has memorised a few images is sure of anything
    if FindingCode.TOO_FEW_EPOCHS in evidence.symptoms:
        return None  # one that has hardly begun is sure of little, and wrong about labels that are right
    found = [
        (doubts, noise) for doubts in evidence.case.doubts if (noise := _noise(doubts, evidence.curves.num_classes))
    ]
    if not found:
        return None
    doubts, noise = max(found, key=lambda one: one[1])
    return Finding(
        FindingCode.LABEL_NOISE,
        Severity.WARNING,
        f"About {percent(noise)} of the labels seem to be wrong: of the {doubts.num_surest:,} {doubts.split} images "
        f"that the network is surest of, {percent(doubts.unlikely)} have a label in the half of the classes that it "
        "finds least likely. Hardly any right labels are there, and half of the labels that were drawn at random.",
        values={
            "noise": round(noise, 4),
            "unlikely": doubts.unlikely,
            "surest_accuracy": doubts.accuracy,
            "split": doubts.split,
        },
        suggestion="Look at the images whose labels it finds least likely (the mistakes of its predictions) and "
        "correct the labels; label smoothing and early stopping limit the damage.",
    )


def _noise(doubts: LabelDoubts, num_classes: int) -> float | None:
    """The part of the labels that is wrong; None if it may be too small to matter, or cannot be told."""
    if num_classes < FEWEST_CLASSES:
        return None
    mistakes = round((1 - doubts.accuracy) * doubts.num_surest)
    if mistakes == 0:
        return None
    among = doubts.unlikely * doubts.num_surest / mistakes
    if among - math.sqrt(max(0.0, among * (1 - among)) / mistakes) <= MISTAKES_UNLIKELY:
        return None
    half = (num_classes // 2) / num_classes
    noise = min(1.0, doubts.unlikely / half)
    error = math.sqrt(doubts.unlikely * (1 - doubts.unlikely) / doubts.num_surest) / half
    right = doubts.accuracy / (1 - noise) if noise <= MOST_NOISE else 0.0
    least = NOISY if right >= SURE_OF_RIGHT else CLEARLY_NOISY if right >= LEARNED_LITTLE else math.inf
    return noise if noise - error >= least else None


def frozen_body(evidence: Evidence) -> Finding | None:
    """Layers with random weights that did not move, though gradients reached them and other layers moved."""
    movement, steps = evidence.movement, evidence.first_steps()
    if evidence.spec.model.starts_pretrained:
        return None
    convolutions = [name for name in evidence.filters.convolutions if name in movement]
    still = [name for name in convolutions if movement[name] == 0 and steps.get(name, 0.0) > FLOAT_STEP]
    if not still or 2 * len(still) < len(convolutions) or max(movement.values()) == 0:
        return None
    they, their = ("was", "its") if len(still) == 1 else ("were", "their")
    return Finding(
        FindingCode.FROZEN_BODY,
        Severity.WARNING,
        f"{len(still)} of {plural(len(convolutions), 'convolution')} {they} not trained: {their} weights are the "
        "random ones that training began with, and only other layers learned.",
        values={"layers": still[:50]},
        suggestion="Set fine_tuning.freeze_backbone_epochs to 0, backbone_lr_factor to 1 and freeze to nothing: "
        "freezing is for networks that start from pretrained weights.",
    )


def too_few_images(evidence: Evidence) -> Finding | None:
    """A small training split that was memorised."""
    curves, images = evidence.curves, evidence.beginning.num_train_images
    if not len(curves.train_accuracy) or not len(curves.val_accuracy):
        return None
    train, val = level(curves.train_accuracy), level(curves.val_accuracy)
    memorised = train >= MEMORISED or FindingCode.OVERFITTING in evidence.symptoms
    if images >= FEW_IMAGES * curves.num_classes or not memorised or train - val < WIDE_GAP:
        return None
    return Finding(
        FindingCode.TOO_FEW_IMAGES,
        Severity.WARNING,
        f"{plural(images, 'training image')} ({images / curves.num_classes:.0f} a class) are too few: the network "
        f"classifies {percent(train)} of them correctly and {percent(val)} of the validation images, so it memorises "
        "them instead of learning the classes.",
        values={"images": images, "train_accuracy": train, "val_accuracy": val},
        suggestion="Use more images (a higher train_limit), augmentation, or a pretrained network.",
    )
