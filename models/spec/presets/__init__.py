"""Presets: networks (`models/`), experiments (`experiments/`) and studies (`studies/`) as YAML files, read once."""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import yaml

from models.plain import JsonObject

FOLDER = Path(__file__).parent


@lru_cache(maxsize=3)
def _load(kind: str) -> dict[str, JsonObject]:
    root = FOLDER / kind
    return {
        path.relative_to(root).with_suffix("").as_posix(): yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.yaml"))
    }


def model_presets() -> dict[str, JsonObject]:
    """Every network preset by name, as the `model` part of a spec."""
    return deepcopy(_load("models"))


def experiment_presets() -> dict[str, JsonObject]:
    """Every experiment preset by name, as a spec's body with defaults left out."""
    return deepcopy(_load("experiments"))


def study_presets() -> dict[str, JsonObject]:
    """Every study of the package by name, as a study's body with defaults left out."""
    return deepcopy(_load("studies"))
