"""Mistakes that can be seen in the spec itself, before anything is trained. They are warnings: the spec can be run.

A finding has the shape that a verdict's has: {"code", "severity", "sentence", "evidence", "suggestion"}.
"""

import math
from collections.abc import Iterator
from typing import Any

from models.data.catalogue import DatasetInfo
from models.data.splits import num_validation
from models.networks.architectures import useful_size
from models.spec.experiment import ExperimentSpec
from models.spec.model import CnnSpec, FastResNetSpec, ZooSpec
from models.spec.parse import model_label
from models.spec.training import MultiStepSpec, SgdSpec, StepSpec

Finding = dict[str, Any]

# The rates between which networks of each kind are trained in practice, by optimizer and start. SGD's are with momentum
# 0.9, whose steps add up to ten times the rate; without it, ten times as much is normal.
ADAPTIVE_RANGE = (1e-6, 1e-2)
PRETRAINED_ADAPTIVE_RANGE = (1e-7, 2e-3)
SGD_RANGE = (1e-4, 0.3)
SGD_NORM_RANGE = (1e-4, 2.0)  # batch normalisation bears more
PRETRAINED_SGD_RANGE = (1e-5, 0.05)
FAST_RESNET_SGD_RANGE = (1e-3, 20.0)  # its logits are scaled down, its gradients with them

FEW_VAL_IMAGES = 1000


def spec_warnings(spec: ExperimentSpec, info: DatasetInfo) -> list[Finding]:
    """Everything about a valid spec that a careful colleague would mention before it is queued."""
    checks = (_input_size, _learning_rate, _head, _splits, _augmentation, _fine_tuning, _schedule, _averaging)
    return [finding for check in checks for finding in check(spec, info)]


def split_sizes(spec: ExperimentSpec, info: DatasetInfo) -> tuple[int, int]:
    """How many images are trained and validated on, as models.data.splits makes the splits."""
    num_val = num_validation(info.num_train, spec.dataset.val_fraction)
    num_train = info.num_train - num_val
    return min(num_train, spec.dataset.train_limit or num_train), min(num_val, spec.dataset.val_limit or num_val)


def _input_size(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    if isinstance(spec.model, CnnSpec):
        return
    size, useful = spec.model.input_size or info.size, useful_size(spec.model.name)
    if size < useful:
        yield _finding(
            "small-input",
            f"{spec.model.name} gets images of {size} pixels; below {useful} its last feature maps have almost no "
            "width left, and accuracy suffers.",
            {"input_size": size, "useful_size": useful},
            f"Set model.input_size to {useful} or more; images are enlarged to it.",
        )


def _learning_rate(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    low, high = _usual_rates(spec)
    lr = spec.optimizer.lr
    where = f"{model_label(spec.model)} with {spec.optimizer.name}"
    pretrained = isinstance(spec.model, ZooSpec) and spec.model.pretrained
    if lr > high:
        loss = "The pretrained weights are likely to be lost in the first steps." if pretrained else "It may diverge."
        yield _finding(
            "high-learning-rate",
            f"A learning rate of {lr:g} is far above what {where} usually bears, up to about {high:g}. {loss}",
            {"lr": lr, "usual_lr": [low, high]},
            f"Set optimizer.lr to {high / 3:.1g}, or run a learning-rate test.",
        )
    elif lr < low:
        yield _finding(
            "low-learning-rate",
            f"A learning rate of {lr:g} is far below what {where} usually needs, {low:g} or more. "
            "It will hardly learn in any number of epochs.",
            {"lr": lr, "usual_lr": [low, high]},
            f"Set optimizer.lr to {math.sqrt(low * high):.1g}, or run a learning-rate test.",
        )


def _usual_rates(spec: ExperimentSpec) -> tuple[float, float]:
    pretrained = isinstance(spec.model, ZooSpec) and spec.model.pretrained
    if not isinstance(spec.optimizer, SgdSpec):
        return PRETRAINED_ADAPTIVE_RANGE if pretrained else ADAPTIVE_RANGE
    normed = isinstance(spec.model, ZooSpec) and not spec.model.name.startswith("squeezenet")
    if isinstance(spec.model, CnnSpec):
        normed = any(conv.batch_norm for block in spec.model.blocks for conv in block.convs)
    if isinstance(spec.model, FastResNetSpec):
        low, high = FAST_RESNET_SGD_RANGE
    elif pretrained:
        low, high = PRETRAINED_SGD_RANGE
    else:
        low, high = SGD_NORM_RANGE if normed else SGD_RANGE
    # a gradient moves the weights by lr / (1 - momentum) in the end
    factor = (1 - spec.optimizer.momentum) / 0.1
    return low * factor, high * factor


def _head(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    hidden = spec.model.head.hidden if isinstance(spec.model, CnnSpec) else ()
    if not hidden:
        return
    if hidden[-1] in (info.num_classes, 1000) and hidden[-1] <= 1000:
        yield _finding(
            "output-layer-written-down",
            f"The last hidden layer has {hidden[-1]} units, like an output layer. The output layer, to the "
            f"{info.num_classes} classes of {info.title}, is added by itself.",
            {"hidden": list(hidden), "num_classes": info.num_classes},
            "Leave the output layer out of model.head.hidden.",
        )
    elif (narrowest := min(hidden)) < info.num_classes:
        yield _finding(
            "narrow-head",
            f"A hidden layer of {narrowest} units has to tell {info.num_classes} classes apart.",
            {"hidden": list(hidden), "num_classes": info.num_classes},
            f"Give every layer in model.head.hidden at least {info.num_classes} units.",
        )


def _splits(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    num_train, num_val = split_sizes(spec, info)
    if num_val < FEW_VAL_IMAGES:
        # two standard errors of a proportion, at its widest
        margin = 100 / math.sqrt(num_val)
        yield _finding(
            "small-validation-split",
            f"{num_val} validation images give an accuracy that is only good to about {margin:.0f} points either way.",
            {"num_val": num_val, "margin_points": round(margin, 1)},
            "Validate on more images (dataset.val_fraction, dataset.val_limit) before comparing experiments.",
        )
    if num_train < spec.batch_size:
        yield _finding(
            "batch-larger-than-split",
            f"A batch of {spec.batch_size} holds all {num_train} training images: an epoch is a single step.",
            {"batch_size": spec.batch_size, "num_train": num_train},
            f"Set batch_size to {max(1, min(128, num_train // 10))}.",
        )
    for field, limit, available in (
        ("train_limit", spec.dataset.train_limit, num_train),
        ("val_limit", spec.dataset.val_limit, num_val),
    ):
        if limit is not None and limit > available:
            yield _finding(
                "limit-without-effect",
                f"dataset.{field} is {limit}, and the split has {available} images: all of them are used.",
                {field: limit, "available": available},
                f"Leave dataset.{field} out.",
                severity="info",
            )


def _augmentation(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    wanted = spec.augmentation
    jitter = wanted.color_jitter
    if info.channels == 1 and (jitter.saturation or jitter.hue):
        yield _finding(
            "colour-of-gray-images",
            f"{info.title} is gray: changing saturation or hue does nothing.",
            {"saturation": jitter.saturation, "hue": jitter.hue},
            "Leave augmentation.color_jitter's saturation and hue at 0.",
            severity="info",
        )
    moved = {
        "cutout_pixels": wanted.cutout_pixels,
        "shift_pixels": wanted.shift_pixels,
        "crop_padding": wanted.crop_padding,
    }
    for field, pixels in moved.items():
        limit = info.size * 3 // 4 if field == "cutout_pixels" else info.size // 3
        if pixels > limit:
            yield _finding(
                "strong-augmentation",
                f"augmentation.{field} is {pixels}, and images are {info.size} pixels wide: little of many is left.",
                {field: pixels, "size": info.size},
                f"Set augmentation.{field} to {info.size // (2 if field == 'cutout_pixels' else 8)} or less.",
            )
    if wanted.vflip or wanted.rotation_degrees > 90:
        yield _finding(
            "upside-down",
            f"Images of {info.title} have an up and a down; turned over, they look like none that will be asked about.",
            {"vflip": wanted.vflip, "rotation_degrees": wanted.rotation_degrees},
            "Leave augmentation.vflip at 0 and rotations small, unless upside-down images are to be told as well.",
            severity="info",
        )


def _fine_tuning(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    pretrained = isinstance(spec.model, ZooSpec) and spec.model.pretrained
    wanted = spec.fine_tuning
    held = wanted.backbone_lr_factor == 0 or wanted.freeze_backbone_epochs >= spec.epochs
    if held and not pretrained:
        yield _finding(
            "frozen-without-pretraining",
            "Everything but the head is held at its random start: only the last layer will learn.",
            {
                "freeze_backbone_epochs": wanted.freeze_backbone_epochs,
                "backbone_lr_factor": wanted.backbone_lr_factor,
            },
            "Leave fine_tuning out, or start from pretrained weights.",
        )
    elif wanted.freeze_backbone_epochs >= spec.epochs:
        yield _finding(
            "never-unfrozen",
            f"The body is frozen for {wanted.freeze_backbone_epochs} epochs of {spec.epochs}: only the head learns.",
            {"freeze_backbone_epochs": wanted.freeze_backbone_epochs, "epochs": spec.epochs},
            "Set fine_tuning.freeze_backbone_epochs below epochs to train the whole network in the end.",
            severity="info",
        )


def _schedule(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    scheduler = spec.lr_scheduler
    first = None
    if isinstance(scheduler, StepSpec):
        first = scheduler.step_size
    elif isinstance(scheduler, MultiStepSpec):
        first = scheduler.milestones[0]
    if first is not None and first >= spec.epochs:
        yield _finding(
            "schedule-without-effect",
            f"The learning rate is first lowered after epoch {first}, and training ends after {spec.epochs}.",
            {"first_reduction": first, "epochs": spec.epochs},
            f"Lower it earlier (after epoch {max(1, spec.epochs // 2)}), or train longer.",
        )
    stopping = spec.early_stopping
    if stopping is not None and stopping.patience >= spec.epochs:
        yield _finding(
            "patience-without-effect",
            f"Early stopping waits out {stopping.patience} epochs, and there are {spec.epochs}: it will never stop.",
            {"patience": stopping.patience, "epochs": spec.epochs},
            f"Set early_stopping.patience below epochs, to {max(1, spec.epochs // 5)} perhaps.",
            severity="info",
        )
    for phase in spec.progressive_resizing:
        if phase.from_epoch > spec.epochs:
            yield _finding(
                "phase-without-effect",
                f"A phase of progressive_resizing begins at epoch {phase.from_epoch}, and there are {spec.epochs}.",
                {"from_epoch": phase.from_epoch, "epochs": spec.epochs},
                "Leave the phase out, or start it earlier.",
                severity="info",
            )


def _averaging(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Finding]:
    if spec.ema_decay is None:
        return
    num_train, _ = split_sizes(spec, info)
    steps = spec.epochs * math.ceil(num_train / (spec.batch_size * spec.accumulate_batches))
    memory = 1 / (1 - spec.ema_decay)
    if memory > steps / 3:
        yield _finding(
            "slow-averaging",
            f"Averaged weights look back over about {memory:.0f} steps, and training has {steps}: "
            "what is measured will lag behind what is trained.",
            {"ema_decay": spec.ema_decay, "steps": steps},
            f"Set ema_decay to {max(0.0, 1 - 10 / steps):.4f} or less.",
        )


def _finding(code: str, sentence: str, values: dict[str, Any], suggestion: str, severity: str = "warning") -> Finding:
    return {
        "code": code,
        "severity": severity,
        "sentence": sentence,
        "evidence": {"epochs": [], "values": values},
        "suggestion": suggestion,
    }
