"""The set-up of a study in words: what its rows have in common, and what was measured on what."""

from collections.abc import Iterable

from models.spec.experiment import ExperimentSpec
from models.studies.images import split_sizes
from models.studies.results import RowResult, StudyResult
from models.text import duration, plural


def describe_setup(study: StudyResult) -> Iterable[tuple[str, str]]:
    """Pairs of what and how."""
    specs = [row.spec for row in study.rows]
    if not study.rows:
        return
    yield "Images", "; ".join(dict.fromkeys(_images(row) for row in study.rows))
    yield "Optimizer", "; ".join(dict.fromkeys(_optimizer(spec) for spec in specs))
    yield "Seeds", _seeds(study)
    yield "Measured", "loss and accuracy as means per image, on one scale; dropout and augmentation only while training"
    devices = dict.fromkeys(run.device for row in study.rows for run in row.runs if run.device)
    if devices:
        yield "Machine", "; ".join(devices)
    if study.budget_seconds:
        yield "Budget", f"{duration(study.budget_seconds)}; rows are shortened to fit it"
    yield "Rows", "; ".join(f"{row.key}: {changed_words(row)}" for row in study.rows)


def _images(row: RowResult) -> str:
    train, val, _ = split_sizes(row.spec, row.images)
    return f"{row.images['title']}, {train:,} for training and {val:,} for validation"


def _optimizer(spec: ExperimentSpec) -> str:
    optimizer, schedule = spec.optimizer, spec.lr_scheduler
    momentum = f", momentum {optimizer.momentum:g}" if getattr(optimizer, "momentum", 0) else ""
    decay = "" if schedule.name == "constant" else f", {schedule.name.replace('_', ' ')} schedule"
    return f"{optimizer.name} at {optimizer.lr:g}{momentum}, batches of {spec.batch_size}{decay}"


def _seeds(study: StudyResult) -> str:
    seeds = sorted({run.seed for row in study.rows for run in row.runs})
    split = sorted({row.spec.dataset.split_seed for row in study.rows})
    each = max((len(row.runs) for row in study.rows), default=0)
    named = ", ".join(map(str, seeds[:10])) + (" \u2026" if len(seeds) > 10 else "")
    return (
        f"{plural(each, 'seed')} a row ({named or 'none yet'}); the split is that of seed {', '.join(map(str, split))}"
    )


def changed_words(row: RowResult) -> str:
    """What a row is, in a few words: network, epochs, what is special about it."""
    spec = row.spec
    parts = [_network(spec), plural(spec.epochs, "epoch")]
    augmentation = spec.augmentation.model_dump(exclude_defaults=True)
    if augmentation:
        parts.append("augmented")
    if spec.clip_grad_norm:
        parts.append(f"gradient clipped at {spec.clip_grad_norm:g}")
    return ", ".join(parts)


def _network(spec: ExperimentSpec) -> str:
    from models.spec.parse import model_label

    size = f" at {spec.model.input_size} pixels" if spec.model.input_size else ""
    start = ", from ImageNet weights" if spec.model.starts_pretrained else ""
    return f"{model_label(spec.model)}{size}{start}"
