"""The set-up of a study in words: what its rows have in common, and how each was trained."""

from collections.abc import Iterator
from typing import Any

from models.spec.experiment import ExperimentSpec
from models.spec.parse import model_label
from models.studies.images import split_sizes
from models.studies.results import RowResult, StudyResult
from models.text import duration, plural

SETUP_COLUMNS = ("Row", "Network", "Training", "Images", "Epochs")


def describe_setup(study: StudyResult) -> Iterator[tuple[str, str]]:
    """What all rows have in common: pairs of a name and its value in words."""
    titles = dict.fromkeys(row.images["title"] for row in study.rows)
    splits = sorted({row.spec.dataset.split_seed for row in study.rows})
    yield (
        "Images",
        f"{', '.join(titles)}; validation images are split off at random (seed {', '.join(map(str, splits))})",
    )
    yield "Seeds", _seeds(study)
    yield "Measured", "loss and accuracy as means per image, on one scale; dropout and augmentation only while training"
    devices = dict.fromkeys(run.device for row in study.rows for run in row.runs if run.device)
    if devices:
        yield "Machine", "; ".join(devices)
    if study.budget_seconds:
        yield "Budget", f"{duration(study.budget_seconds)}; rows are shortened to fit it"


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
    return ", ".join(parts)


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
