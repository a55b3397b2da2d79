"""The set-up of a study in words: what its rows have in common, and how each was trained."""

from collections.abc import Iterator
from typing import Any

from models.spec.experiment import ExperimentSpec
from models.spec.parse import model_label
from models.studies.blocks import DASH
from models.studies.images import split_sizes
from models.studies.results import RowResult, StudyResult
from models.text import duration, plural

SPLITS = {
    "random": "validation images are split off at random (seed {seed})",
    "stratified": "validation images are split off at random, as many of each class as its share (seed {seed})",
    "grouped": "validation images are whole groups, chosen at random (seed {seed})",
    "given": "validation images are those that the dataset names",
}
SETUP_COLUMNS = ("Row", "Network", "Training", "Images", "Epochs")


def describe_setup(study: StudyResult) -> Iterator[tuple[str, str]]:
    """What all rows have in common: pairs of a name and its value in words."""
    titles = dict.fromkeys(row.images["title"] for row in study.rows)
    splits = dict.fromkeys(_split(row) for row in study.rows)
    yield "Images", f"{', '.join(titles)}; {' or '.join(splits)}" if splits else DASH
    yield "Seeds", _seeds(study)
    yield "Measured", "loss and accuracy as means per image, on one scale; dropout and augmentation only while training"
    devices = dict.fromkeys(run.device for row in study.rows for run in row.runs if run.device)
    if devices:
        yield "Machine", "; ".join(devices)
    if study.budget_seconds:
        yield "Budget", f"{duration(study.budget_seconds)}; rows are shortened to fit it"


def _split(row: RowResult) -> str:
    dataset = row.spec.dataset
    how = SPLITS[row.images.get("split", dataset.split or "random")]
    return how.format(seed=dataset.split_seed)


def setup_row(row: RowResult) -> tuple[str, ...]:
    """The cells of a row as it was run, under SETUP_COLUMNS."""
    train, val, _ = split_sizes(row.spec, row.images)
    return (row.key, _network(row.spec), _training(row.spec), f"{train:,} + {val:,}", str(row.spec.epochs))


def _training(spec: ExperimentSpec) -> str:
    optimizer, schedule = spec.optimizer, spec.lr_scheduler
    parts = [f"{optimizer.name} at {optimizer.lr:g}"]
    if getattr(optimizer, "momentum", 0):
        parts.append(f"momentum {getattr(optimizer, 'momentum', 0):g}")
    parts.append(f"batches of {spec.batch_size}")
    if schedule.name != "constant":
        parts.append(f"{schedule.name.replace('_', ' ')} schedule")
    if changed := spec.augmentation.model_dump(mode="json", exclude_defaults=True):
        parts.append(f"augmented ({', '.join(_setting(field, value) for field, value in changed.items())})")
    if spec.clip_grad_norm:
        parts.append(f"gradient clipped at {spec.clip_grad_norm:g}")
    return ", ".join(parts + list(_others(spec)))


def _others(spec: ExperimentSpec) -> Iterator[str]:
    """What else differs from a plain training."""
    if decay := getattr(spec.optimizer, "weight_decay", 0):
        yield f"weight decay {decay:g}"
    if spec.accumulate_batches > 1:
        yield f"{spec.accumulate_batches} batches a step"
    if spec.label_smoothing:
        yield f"labels smoothed by {spec.label_smoothing:g}"
    if spec.class_weights is not None:
        yield "balanced class weights" if spec.class_weights == "balanced" else "class weights"
    if spec.sampler == "balanced":
        yield "classes sampled equally"
    if spec.ema_decay is not None:
        yield f"weights averaged with a decay of {spec.ema_decay:g}"
    if spec.progressive_resizing:
        yield "input size growing"
    if spec.early_stopping is not None:
        yield "early stopping"
    if spec.test_time_augmentation == "mirror":
        yield "mirror images averaged when measured"


def _setting(field: str, value: Any) -> str:
    name = field.replace("_", " ")
    return f"{name} {value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else name


def _network(spec: ExperimentSpec) -> str:
    size = f" at {spec.model.input_size} pixels" if spec.model.input_size else ""
    head = ", with its 1000-class head" if getattr(spec.model, "keep_head", False) else ""
    start = f", ImageNet weights{head}" if spec.model.starts_pretrained else ""
    return f"{model_label(spec.model)}{size}{start}"


def _seeds(study: StudyResult) -> str:
    seeds = sorted({run.seed for row in study.rows for run in row.runs})
    each = max((len(row.runs) for row in study.rows), default=0)
    named = ", ".join(map(str, seeds[:10])) + (" \u2026" if len(seeds) > 10 else "")
    return f"{plural(each, 'seed')} a row ({named or 'none yet'})"
