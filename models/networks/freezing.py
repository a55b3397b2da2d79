"""Parameters that a spec freezes by pattern (fine_tuning.freeze)."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from models.errors import FieldError, SpecError
from models.spec.experiment import ExperimentSpec


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a parameter or a layer around it; * and ? stand for characters, dots among them."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def frozen_names(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The parameters that are frozen."""
    return {name for name in names if any(matches(name, pattern) for pattern in patterns)}


def check_freezing(spec: ExperimentSpec, parameters: Sequence[str], head: str) -> None:
    """Raise SpecError for a pattern that names no parameter of the network, or where none would be left to train."""
    patterns = spec.fine_tuning.freeze
    for place, pattern in enumerate(patterns):
        if not any(matches(name, pattern) for name in parameters):
            raise SpecError([_without_match(place, pattern, parameters)], fix="GET /api/v1/experiments/{id}/layers")
    if not patterns:
        return
    left = set(parameters) - frozen_names(parameters, patterns)
    if not left:
        message = "freezes every parameter of the network, so nothing would be trained"
        raise SpecError([{"field": "fine_tuning.freeze", "message": message, "value": list(patterns)[:20]}])
    of_head = {name for name in left if name.startswith(f"{head}.")}
    if not of_head and (spec.fine_tuning.freeze_backbone_epochs or spec.fine_tuning.backbone_lr_factor == 0):
        message = f"freezes the head, {head}, while fine_tuning trains nothing else"
        raise SpecError([{"field": "fine_tuning.freeze", "message": message, "value": list(patterns)[:20]}])


def _without_match(place: int, pattern: str, parameters: Sequence[str]) -> FieldError:
    layers = dict.fromkeys(name.rpartition(".")[0] for name in parameters)
    word = pattern.replace("*", "").replace("?", "").rstrip(".")
    nearest = difflib.get_close_matches(word, [*layers, *parameters], n=1, cutoff=0.3)
    entry: FieldError = {
        "field": f"fine_tuning.freeze.{place}",
        "message": f"names no parameter of this network: {pattern[:60]!r}",
        "value": pattern,
    }
    return {**entry, "nearest": nearest[0]} if nearest else entry
