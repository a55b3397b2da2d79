"""Warnings about settings that have no effect because of another setting, each with the change that gives it one.

The spec can be run as it is, so these are warnings and not errors.
"""

import math
from collections.abc import Iterator

from models.data.info import DatasetInfo
from models.findings import Severity, WarningCode
from models.networks.family import family_of
from models.networks.warning import Warned, split_sizes, warning
from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec
from models.spec.training import (
    ConstantSpec,
    CosineSpec,
    ExponentialSpec,
    LrSchedulerSpec,
    MultiStepSpec,
    OneCycleSpec,
    PlateauSpec,
    StepSpec,
    WarmupSpec,
)
from models.text import plural

DEFAULT_START = ConstantSpec().warmup_start_factor
DEFAULT_GAMMA: dict[type, float] = {kind: kind.model_fields["gamma"].default for kind in (ExponentialSpec, StepSpec)}


def settings_without_effect(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    """Warnings about every setting of a valid spec that has no effect because of another one."""
    for check in (_limits, _gray, _mixup, _schedule, _warmup, _resizing, _stopping, _fine_tuning, _batches, _weights):
        yield from check(spec, info)


def num_batches(spec: ExperimentSpec, info: DatasetInfo) -> int:
    """Batches in an epoch. (A last batch of one image joins the one before it.)"""
    num_train, _ = split_sizes(spec, info)
    whole, rest = divmod(num_train, spec.batch_size)
    return max(1, whole + (rest > 1 or (rest == 1 and whole == 0)))


def _limits(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    num_train, num_val = split_sizes(spec, info)
    for field, limit, available in (
        ("train_limit", spec.dataset.train_limit, num_train),
        ("val_limit", spec.dataset.val_limit, num_val),
    ):
        if limit is not None and limit > available:
            yield warning(
                WarningCode.LIMIT_WITHOUT_EFFECT,
                f"dataset.{field} is {limit:,}, and the split has {plural(available, 'image')}: all of them are used.",
                {field: limit, "available": available},
                f"Leave dataset.{field} out.",
                {f"dataset.{field}": None},
                severity=Severity.INFO,
            )


def _gray(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    jitter = spec.augmentation.color_jitter
    if info.channels == 1 and (jitter.saturation or jitter.hue):
        yield warning(
            WarningCode.COLOUR_OF_GRAY_IMAGES,
            f"{info.title} is gray: changing saturation or hue does nothing.",
            {"saturation": jitter.saturation, "hue": jitter.hue},
            "Leave augmentation.color_jitter's saturation and hue at 0.",
            {"augmentation.color_jitter.saturation": 0.0, "augmentation.color_jitter.hue": 0.0},
            severity=Severity.INFO,
        )


def _mixup(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    num_train, _ = split_sizes(spec, info)
    if spec.augmentation.mixup_alpha and min(spec.batch_size, num_train) == 1:
        yield warning(
            WarningCode.MIXUP_WITHOUT_EFFECT,
            "augmentation.mixup_alpha blends pairs of a batch's images, and a batch has one image.",
            {"mixup_alpha": spec.augmentation.mixup_alpha, "batch_size": spec.batch_size},
            "Set batch_size to 32, or leave augmentation.mixup_alpha out.",
            {"batch_size": 32},
        )


def _schedule(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    scheduler, lr, epochs = spec.lr_scheduler, spec.optimizer.lr, spec.epochs
    if isinstance(scheduler, CosineSpec) and scheduler.eta_min >= lr:
        yield _floor("eta_min", scheduler.eta_min, lr)
    if isinstance(scheduler, PlateauSpec) and scheduler.min_lr >= lr:
        yield _floor("min_lr", scheduler.min_lr, lr)
    if isinstance(scheduler, ExponentialSpec | StepSpec | MultiStepSpec) and scheduler.gamma == 1:
        better = DEFAULT_GAMMA.get(type(scheduler), 0.1)
        yield _idle(
            f"lr_scheduler.gamma is 1: the {scheduler.name} schedule multiplies the learning rate by 1.",
            {"gamma": 1.0},
            f"Set lr_scheduler.gamma to {better:g}, or leave lr_scheduler out.",
            {"lr_scheduler.gamma": better},
        )
    elif isinstance(scheduler, OneCycleSpec) and scheduler.div_factor * scheduler.final_div_factor == 1:
        yield _idle(
            "lr_scheduler.div_factor and final_div_factor are 1: the cycle stays at the peak rate throughout.",
            {"div_factor": 1.0, "final_div_factor": 1.0},
            "Set lr_scheduler.div_factor to 25.",
            {"lr_scheduler.div_factor": 25.0},
        )
    elif (first := _first_reduction(scheduler)) is not None and first >= epochs:
        yield from _too_late(scheduler, first, epochs)
    if isinstance(scheduler, MultiStepSpec) and scheduler.milestones[0] < epochs <= scheduler.milestones[-1]:
        reached = [milestone for milestone in scheduler.milestones if milestone < epochs]
        late = len(scheduler.milestones) - len(reached)
        yield warning(
            WarningCode.MILESTONE_WITHOUT_EFFECT,
            f"{plural(late, 'milestone')} of lr_scheduler.milestones {'is' if late == 1 else 'are'} never passed: "
            f"training ends after {plural(epochs, 'epoch')}.",
            {"milestones": list(scheduler.milestones), "epochs": epochs},
            f"Set lr_scheduler.milestones to {reached}, or train longer.",
            {"lr_scheduler.milestones": reached},
            severity=Severity.INFO,
        )


def _floor(field: str, floor: float, lr: float) -> Warned:
    return _idle(
        f"lr_scheduler.{field} is {floor:g}, and the learning rate is {lr:g}: it is never lowered.",
        {field: floor, "lr": lr},
        f"Set lr_scheduler.{field} to {lr / 100:.1g}, or leave it out.",
        {f"lr_scheduler.{field}": float(f"{lr / 100:.1g}")},
    )


def _idle(sentence: str, values: JsonObject, suggestion: str, changes: JsonObject) -> Warned:
    return warning(WarningCode.SCHEDULE_WITHOUT_EFFECT, sentence, values, suggestion, changes)


def _first_reduction(scheduler: LrSchedulerSpec) -> int | None:
    """The first epoch after which a schedule can lower the rate; None for schedules that move at every step."""
    if isinstance(scheduler, StepSpec):
        return scheduler.step_size
    if isinstance(scheduler, MultiStepSpec):
        return scheduler.milestones[0]
    if isinstance(scheduler, PlateauSpec):
        return scheduler.patience + 2  # the first epoch is the best so far, then more than `patience` must pass
    return 1 if isinstance(scheduler, ExponentialSpec) else None


def _too_late(scheduler: LrSchedulerSpec, first: int, epochs: int) -> Iterator[Warned]:
    """The warning that training ends before the schedule lowers the rate, with an earlier epoch for it if possible."""
    middle = epochs // 2
    change: JsonObject = {"lr_scheduler": {"name": "constant"}}
    advice = "Leave lr_scheduler out, or train longer."
    if isinstance(scheduler, StepSpec) and middle:
        change, advice = {"lr_scheduler.step_size": middle}, f"Set lr_scheduler.step_size to {middle}, or train longer."
    elif isinstance(scheduler, MultiStepSpec) and middle:
        change = {"lr_scheduler.milestones": [middle]}
        advice = f"Set lr_scheduler.milestones to [{middle}], or train longer."
    elif isinstance(scheduler, PlateauSpec) and epochs > 3:
        patience = max(0, (epochs - 3) // 3)
        change = {"lr_scheduler.patience": patience}
        advice = f"Set lr_scheduler.patience to {patience}, or train longer."
    can = "could first be" if isinstance(scheduler, PlateauSpec) else "is first"
    yield _idle(
        f"The learning rate {can} lowered after epoch {first}, and training ends after {plural(epochs, 'epoch')}.",
        {"first_reduction": first, "epochs": epochs},
        advice,
        change,
    )


def _warmup(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    scheduler = spec.lr_scheduler
    if not isinstance(scheduler, WarmupSpec):
        return
    length, start = scheduler.warmup_epochs, scheduler.warmup_start_factor
    values = {"warmup_epochs": length, "warmup_start_factor": start}
    if length == 0 and start != DEFAULT_START:
        yield warning(
            WarningCode.WARMUP_WITHOUT_EFFECT,
            f"lr_scheduler.warmup_start_factor is {start:g}, and lr_scheduler.warmup_epochs is 0: there is no warm-up.",
            values,
            "Set lr_scheduler.warmup_epochs to 1.",
            {"lr_scheduler.warmup_epochs": 1},
        )
    elif length > 0 and start == 1:
        yield warning(
            WarningCode.WARMUP_WITHOUT_EFFECT,
            "lr_scheduler.warmup_start_factor is 1: the warm-up starts at the full learning rate.",
            values,
            f"Leave lr_scheduler.warmup_start_factor at {DEFAULT_START:g}.",
            {"lr_scheduler.warmup_start_factor": DEFAULT_START},
        )
    elif length > 0 and length * math.ceil(num_batches(spec, info) / spec.accumulate_batches) <= 1:
        yield warning(
            WarningCode.WARMUP_WITHOUT_EFFECT,
            f"A warm-up of {length:g} epochs is no longer than one step.",
            {**values, "steps_per_epoch": math.ceil(num_batches(spec, info) / spec.accumulate_batches)},
            "Leave lr_scheduler.warmup_epochs out, or make it longer.",
            {"lr_scheduler.warmup_epochs": 0, "lr_scheduler.warmup_start_factor": DEFAULT_START},
            severity=Severity.INFO,
        )
    elif length >= spec.epochs:
        shorter = spec.epochs / 10
        yield warning(
            WarningCode.WARMUP_THROUGHOUT,
            f"The warm-up takes all {plural(spec.epochs, 'epoch')}: the full learning rate comes with the last step.",
            {**values, "epochs": spec.epochs},
            f"Set lr_scheduler.warmup_epochs to {shorter:g}.",
            {"lr_scheduler.warmup_epochs": shorter},
        )


def _resizing(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    phases = spec.progressive_resizing
    late = [phase for phase in phases if phase.from_epoch > spec.epochs]
    size = family_of(spec.model).input_size(spec.model, info)
    if late:
        begins = " and ".join(str(phase.from_epoch) for phase in late[:3])
        yield warning(
            WarningCode.PHASE_WITHOUT_EFFECT,
            f"{plural(len(late), 'phase')} of progressive_resizing {'begins' if len(late) == 1 else 'begin'} after the "
            f"last epoch, {spec.epochs} (at epoch {begins}{', ...' if late[3:] else ''}).",
            {"from_epoch": late[0].from_epoch, "epochs": spec.epochs},
            "Leave that out, or start it earlier.",
            {"progressive_resizing": [phase.model_dump() for phase in phases if phase not in late]},
            severity=Severity.INFO,
        )
    elif phases and all(phase.input_size == size for phase in phases):
        yield warning(
            WarningCode.RESIZING_WITHOUT_EFFECT,
            f"Every phase of progressive_resizing has the size of the network's input, {size} pixels.",
            {"input_size": size},
            "Leave progressive_resizing out.",
            {"progressive_resizing": []},
            severity=Severity.INFO,
        )


def _stopping(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    stopping = spec.early_stopping
    if stopping is None:
        return
    most = 1.0 if str(stopping.monitor).endswith("accuracy") else math.log(max(info.num_classes, 2))
    if stopping.min_delta >= most:
        yield warning(
            WarningCode.MIN_DELTA_OUT_OF_REACH,
            f"No epoch can improve {stopping.monitor} by early_stopping.min_delta, {stopping.min_delta:g}: training "
            f"will stop after epoch {min(spec.epochs, stopping.patience + 1)} whatever happens.",
            {"min_delta": stopping.min_delta, "largest_improvement": round(most, 4)},
            "Set early_stopping.min_delta to 0.",
            {"early_stopping.min_delta": 0.0},
        )
    elif stopping.patience >= spec.epochs - 1:
        patience = max(1, spec.epochs // 5)
        sets = patience < spec.epochs - 1
        yield warning(
            WarningCode.PATIENCE_WITHOUT_EFFECT,
            f"Early stopping waits out {plural(stopping.patience, 'epoch')}, and there "
            f"{'is' if spec.epochs == 1 else 'are'} {spec.epochs}: it will never stop before the end.",
            {"patience": stopping.patience, "epochs": spec.epochs},
            f"Set early_stopping.patience to {patience}." if sets else "Leave early_stopping out.",
            {"early_stopping.patience": patience} if sets else {"early_stopping": None},
            severity=Severity.INFO,
        )


def _fine_tuning(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    wanted = spec.fine_tuning
    if wanted.backbone_lr_factor == 0 and 0 < wanted.freeze_backbone_epochs < spec.epochs:
        yield warning(
            WarningCode.FREEZING_WITHOUT_EFFECT,
            f"fine_tuning.freeze_backbone_epochs is {wanted.freeze_backbone_epochs}, and backbone_lr_factor 0 freezes "
            "the body for the whole of training.",
            {"freeze_backbone_epochs": wanted.freeze_backbone_epochs, "backbone_lr_factor": 0.0},
            "Set fine_tuning.backbone_lr_factor to 0.1 to train the body after that.",
            {"fine_tuning.backbone_lr_factor": 0.1},
        )


def _batches(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    batches = num_batches(spec, info)
    if spec.accumulate_batches > batches:
        yield warning(
            WarningCode.ACCUMULATION_WITHOUT_EFFECT,
            f"accumulate_batches is {spec.accumulate_batches:,}, and an epoch has "
            f"{plural(batches, 'batch', 'batches')}: each epoch is one step already.",
            {"accumulate_batches": spec.accumulate_batches, "num_batches": batches},
            f"Set accumulate_batches to {max(1, batches // 4)}.",
            {"accumulate_batches": max(1, batches // 4)},
        )
    if spec.ema_decay == 0:
        yield warning(
            WarningCode.AVERAGING_WITHOUT_EFFECT,
            "ema_decay is 0: the averaged weights are those of the last step.",
            {"ema_decay": 0.0},
            "Leave ema_decay out.",
            {"ema_decay": None},
        )


def _weights(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    weights = spec.class_weights
    if not isinstance(weights, tuple) or not weights:
        return
    ignored = [index for index, weight in enumerate(weights) if weight == 0]
    if len(set(weights)) == 1:
        yield warning(
            WarningCode.CLASS_WEIGHTS_WITHOUT_EFFECT,
            "class_weights are all the same, and only their ratios count.",
            {"class_weights": list(weights)},
            "Leave class_weights out.",
            {"class_weights": None},
            severity=Severity.INFO,
        )
    elif ignored:
        names = ", ".join(info.class_names[index] for index in ignored[:5] if index < len(info.class_names))
        yield warning(
            WarningCode.CLASSES_OF_WEIGHT_0,
            f"{plural(len(ignored), 'entry', 'entries')} of class_weights "
            f"{'is' if len(ignored) == 1 else 'are'} 0: nothing is learned from images of {names}"
            f"{', ...' if ignored[5:] else ''}.",
            {"classes": ignored},
            "Give every class a weight above 0.",
            {"class_weights": [weight or min(w for w in weights if w) for weight in weights]},
            severity=Severity.INFO,
        )
