"""Warnings about a valid spec before it is trained: it can be run, but is likely to disappoint.

A finding has the shape that a verdict's has, {"code", "severity", "sentence", "evidence", "suggestion"}, and "changes":
what the suggestion would set, by field.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from models.data.info import DatasetInfo
from models.findings import Severity, WarningCode
from models.networks.describe import can_be_run
from models.networks.family import family_of
from models.networks.no_effect import settings_without_effect
from models.networks.warning import Warned, split_sizes, warning
from models.spec.experiment import ExperimentSpec
from models.spec.parse import model_label
from models.spec.training import SgdSpec
from models.text import plural

FEW_VAL_IMAGES = 1000
UNEVEN, VERY_UNEVEN = 2, 10
"""Images of the largest class for one of the smallest: from the first on there is a note, from the second a warning."""


def spec_warnings(spec: ExperimentSpec, info: DatasetInfo) -> list[Warned]:
    """All warnings about a valid spec, in a fixed order."""
    checks = (
        _input_size,
        _learning_rate,
        _family,
        _splits,
        _class_counts,
        _augmentation,
        _mirroring,
        _fine_tuning,
        settings_without_effect,
        _averaging,
    )
    return [_usable(finding, spec, info) for check in checks for finding in check(spec, info)]


def _usable(finding: Warned, spec: ExperimentSpec, info: DatasetInfo) -> Warned:
    """A suggestion that would be refused (an input that then needs too much memory) is not made."""
    changes = finding["changes"]
    if not changes or can_be_run(spec, info, changes):
        return finding
    fields = " and ".join(changes)
    refused = f"A change of {fields} would help, but is not possible with the rest of this spec on this machine."
    return {**finding, "suggestion": refused, "changes": {}}


def _input_size(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    family = family_of(spec.model)
    size, useful = family.input_size(spec.model, info), family.useful_size(spec.model)
    if size < useful:
        yield warning(
            WarningCode.SMALL_INPUT,
            f"{spec.model.name} gets images of {size} pixels; below {useful} its last feature maps have almost no "
            "width left, and accuracy suffers.",
            {"input_size": size, "useful_size": useful},
            f"Set model.input_size to {useful} or more; images are enlarged to it.",
            {"model.input_size": useful},
        )


def _learning_rate(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    low, high = _usual_rates(spec)
    lr = spec.optimizer.lr
    where = f"{model_label(spec.model)} with {spec.optimizer.name}"
    pretrained = spec.model.starts_pretrained
    if lr > high:
        loss = "The pretrained weights are likely to be lost in the first steps." if pretrained else "It may diverge."
        yield warning(
            WarningCode.HIGH_LEARNING_RATE,
            f"A learning rate of {lr:g} is far above what is usual for {where}, up to about {high:g}. {loss}",
            {"lr": lr, "usual_lr": [low, high]},
            f"Set optimizer.lr to {high / 3:.1g}, or run a learning-rate test.",
            {"optimizer.lr": float(f"{high / 3:.1g}")},
        )
    elif lr < low:
        yield warning(
            WarningCode.LOW_LEARNING_RATE,
            f"A learning rate of {lr:g} is far below what is usual for {where}, {low:g} or more. "
            "It will hardly learn in any number of epochs.",
            {"lr": lr, "usual_lr": [low, high]},
            f"Set optimizer.lr to {math.sqrt(low * high):.1g}, or run a learning-rate test.",
            {"optimizer.lr": float(f"{math.sqrt(low * high):.1g}")},
        )


def _usual_rates(spec: ExperimentSpec) -> tuple[float, float]:
    family = family_of(spec.model)
    if not isinstance(spec.optimizer, SgdSpec):
        return family.usual_adaptive_rates(spec.model)
    low, high = family.usual_sgd_rates(spec.model)
    # a gradient moves the weights by lr / (1 - momentum) in the end
    factor = (1 - spec.optimizer.momentum) / 0.1
    return low * factor, high * factor


def _family(spec: ExperimentSpec, info: DatasetInfo) -> Iterable[Warned]:
    return family_of(spec.model).warnings(spec, info)


def _splits(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    num_train, num_val = split_sizes(spec, info)
    if num_val < FEW_VAL_IMAGES:
        # two standard errors of a proportion, at its widest
        margin = 100 / math.sqrt(num_val)
        give = f"{plural(num_val, 'validation image')} {'gives' if num_val == 1 else 'give'}"
        yield warning(
            WarningCode.SMALL_VALIDATION_SPLIT,
            f"{give} an accuracy that is only good to about {margin:.0f} points either way.",
            {"num_val": num_val, "margin_points": round(margin, 1)},
            "Validate on more images (dataset.val_fraction, dataset.val_limit) before comparing experiments.",
        )
    if num_train < spec.batch_size:
        smaller = min(128, max(2, num_train // 10))
        yield warning(
            WarningCode.BATCH_LARGER_THAN_SPLIT,
            f"A batch of {spec.batch_size:,} holds all {plural(num_train, 'training image')}: an epoch is one step.",
            {"batch_size": spec.batch_size, "num_train": num_train},
            f"Set batch_size to {smaller}." if smaller < num_train else "Train on more images.",
            {"batch_size": smaller} if smaller < num_train else {},
        )


def _class_counts(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    """Classes of very different sizes that nothing in the spec makes up for, and what makes up for them twice."""
    if spec.sampler == "balanced" and spec.class_weights == "balanced":
        yield warning(
            WarningCode.BALANCED_TWICE,
            "sampler shows every class equally often, and class_weights then compensates for their sizes again: rare "
            "classes count for more than the others.",
            {},
            "Leave class_weights out.",
            {"class_weights": None},
            severity=Severity.INFO,
        )
    if not info.class_counts or spec.class_weights is not None or spec.sampler == "balanced":
        return
    largest, smallest = max(info.class_counts), min(info.class_counts)
    if largest < UNEVEN * max(1, smallest):
        return
    names = [info.class_names[info.class_counts.index(count)] for count in (largest, smallest)]
    change: dict[str, Any] = {"sampler": "balanced"} if spec.augmentation.mixup_alpha else {"class_weights": "balanced"}
    field = next(iter(change))
    yield warning(
        WarningCode.UNEVEN_CLASSES,
        f"Classes differ in size: '{names[0]}' has {plural(largest, 'training image')}, '{names[1]}' "
        f"{smallest or 'none'}. A network does well on average by neglecting the small ones.",
        {"largest": largest, "smallest": smallest},
        f"Set {field} to 'balanced', and look at the accuracy of each class.",
        change,
        severity=Severity.WARNING if largest >= VERY_UNEVEN * max(1, smallest) else Severity.INFO,
    )


def _augmentation(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    wanted = spec.augmentation
    moved = {
        "cutout_pixels": wanted.cutout_pixels,
        "shift_pixels": wanted.shift_pixels,
        "crop_padding": wanted.crop_padding,
    }
    for field, pixels in moved.items():
        limit = info.size * 3 // 4 if field == "cutout_pixels" else info.size // 3
        if pixels > limit:
            yield warning(
                WarningCode.STRONG_AUGMENTATION,
                f"augmentation.{field} is {pixels}, and images are {info.size} pixels wide: little of many is left.",
                {field: pixels, "size": info.size},
                f"Set augmentation.{field} to {info.size // (2 if field == 'cutout_pixels' else 8)} or less.",
                {f"augmentation.{field}": info.size // (2 if field == "cutout_pixels" else 8)},
            )
    if info.has_up_and_down and (wanted.vflip or wanted.rotation_degrees > 90):
        yield warning(
            WarningCode.UPSIDE_DOWN,
            f"Images of {info.title} have an orientation: upside-down ones are unlike any that occur in practice.",
            {"vflip": wanted.vflip, "rotation_degrees": wanted.rotation_degrees},
            "Leave augmentation.vflip at 0 and rotations small, unless upside-down images are to be classified too.",
            {"augmentation.vflip": 0.0, "augmentation.rotation_degrees": min(15.0, wanted.rotation_degrees)},
            severity=Severity.INFO,
        )


def _mirroring(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    averaged = spec.test_time_augmentation == "mirror"
    if not info.can_be_mirrored and (spec.augmentation.hflip or spec.augmentation.vflip or averaged):
        yield warning(
            WarningCode.MIRRORED,
            f"Images of {info.title} cannot be mirrored: the mirror image is of another class, or of none.",
            {
                "hflip": spec.augmentation.hflip,
                "vflip": spec.augmentation.vflip,
                "test_time_augmentation": spec.test_time_augmentation,
            },
            "Leave augmentation.hflip and augmentation.vflip at 0 and test_time_augmentation at none.",
            {"augmentation.hflip": 0.0, "augmentation.vflip": 0.0, "test_time_augmentation": "none"},
        )


def _fine_tuning(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    pretrained = spec.model.starts_pretrained
    wanted = spec.fine_tuning
    held = wanted.backbone_lr_factor == 0 or wanted.freeze_backbone_epochs >= spec.epochs
    if held and not pretrained:
        yield warning(
            WarningCode.FROZEN_WITHOUT_PRETRAINING,
            "Everything but the head is held at its random start: only the last layer will learn.",
            {
                "freeze_backbone_epochs": wanted.freeze_backbone_epochs,
                "backbone_lr_factor": wanted.backbone_lr_factor,
            },
            "Leave fine_tuning out, or start from pretrained weights.",
            {"fine_tuning": {}},
        )
    elif wanted.freeze and not pretrained:
        yield warning(
            WarningCode.FROZEN_WITHOUT_PRETRAINING,
            "fine_tuning.freeze holds layers at their random start.",
            {"freeze": list(wanted.freeze)},
            "Leave fine_tuning.freeze out, or start from trained weights.",
            {"fine_tuning.freeze": []},
        )
    elif wanted.freeze_backbone_epochs >= spec.epochs:
        yield warning(
            WarningCode.NEVER_UNFROZEN,
            f"The body is frozen for all {plural(spec.epochs, 'epoch')}: only the head learns.",
            {"freeze_backbone_epochs": wanted.freeze_backbone_epochs, "epochs": spec.epochs},
            "Set fine_tuning.freeze_backbone_epochs below epochs to train the whole network in the end.",
            {"fine_tuning.freeze_backbone_epochs": spec.epochs // 3},
            severity=Severity.INFO,
        )


def _averaging(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    if spec.ema_decay is None:
        return
    num_train, _ = split_sizes(spec, info)
    steps = spec.epochs * math.ceil(num_train / (spec.batch_size * spec.accumulate_batches))
    memory = 1 / (1 - spec.ema_decay)
    if memory > steps / 3:
        decay = max(0.0, math.floor((1 - 10 / steps) * 1e4) / 1e4)
        yield warning(
            WarningCode.SLOW_AVERAGING,
            f"Averaged weights look back over about {plural(round(memory), 'step')}, and training has {steps:,}: "
            "what is measured will lag behind what is trained.",
            {"ema_decay": spec.ema_decay, "steps": steps},
            f"Set ema_decay to {decay:.4f} or less." if decay else "Leave ema_decay out, or train longer.",
            {"ema_decay": decay or None},
        )
