"""Parses a submitted body into an ExperimentSpec: expands presets, aliases and short forms; one error per field.

{"preset": "lab-report/6e", "epochs": 10}   that preset with one thing changed
{"model": "baseline"}                       a network preset by name
{"optimizer": "adam"}                       the short form of {"optimizer": {"name": "adam"}}
{"optimizer": {"learning_rate": 0.1}}       `learning_rate`, `wd` and `scheduler` are aliases
"""

import json
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from models.errors import SpecError
from models.plain import JsonObject
from models.spec.advice import with_usable_advice
from models.spec.experiment import ExperimentSpec
from models.spec.explain import describe, explain, fail, nearest_word, unknown_keys
from models.spec.kinds import PARTS
from models.spec.model import FAMILIES, NetworkSpec, network_class
from models.spec.plain import copy_plain
from models.spec.presets import experiment_presets, model_presets

ALIASES = {"learning_rate": "lr", "wd": "weight_decay"}
TOP_ALIASES = {**ALIASES, "scheduler": "lr_scheduler"}
SHORT_FORMS = ("dataset", "model", "optimizer", "lr_scheduler")
NOT_OF_THE_NETWORK = {"input_size", "init_from"}
"""Fields of `model` by which one network does not differ from another."""
KEPT_SPECS, KEPT_LENGTH = 256, 8000
"""Stored specs that are kept as objects, and the length of the longest that is: most have 2,000 characters."""
OPTIMIZER_KEYS = ("lr", "weight_decay", "momentum")
"""Fields that are also accepted at the top level."""


def parse_spec(body: Any) -> ExperimentSpec:
    """Read a POSTed body into a complete spec.

    Raises SpecError with one entry a field: where, what was wrong, and the nearest valid value where there is one.
    """
    body = copy_plain(body)
    if not isinstance(body, dict):
        fail("body", f"a spec is an object with keys, not {describe(body)}", nearest={"model": "baseline"})
    body = _expand_model(normalise(body))
    _check_kinds(body)
    try:
        return ExperimentSpec.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise with_usable_advice(explain(error, body), body, unknown_keys(error), _refused) from None


def _refused(body: JsonObject) -> SpecError | None:
    """The error of a complete body; None for a valid one."""
    try:
        ExperimentSpec.model_validate_json(json.dumps(body))
    except ValidationError as error:
        return explain(error, body)
    return None


def load_spec(stored: JsonObject) -> ExperimentSpec:
    """Read a spec that was stored by this version or an earlier one. It is complete, so nothing is expanded.

    A spec without a version number is of version 1.
    """
    text = json.dumps({"spec_version": 1, **stored})
    return _known_spec(text) if len(text) <= KEPT_LENGTH else ExperimentSpec.model_validate_json(text)


@lru_cache(KEPT_SPECS)
def _known_spec(text: str) -> ExperimentSpec:
    """A study of many rows is read again and again, and each of its specs takes longer to validate than to write."""
    return ExperimentSpec.model_validate_json(text)


def load_model(stored: JsonObject) -> NetworkSpec:
    """Read the `model` part of a stored spec."""
    cls = network_class(stored["name"])
    if cls is None:
        raise SpecError([{"field": "model.name", "message": f"there is no network {describe(stored['name'])}"}])
    return cls.model_validate_json(json.dumps(stored))


def model_label(model: NetworkSpec) -> str:
    """The preset's name if the network is one of the presets, else its family: baseline, wide, cnn, squeezenet1_1."""
    return _labels().get(model.model_dump_json(exclude=NOT_OF_THE_NETWORK), str(model.name))


@lru_cache(maxsize=1)
def _labels() -> dict[str, str]:
    return {
        load_model(preset).model_dump_json(exclude=NOT_OF_THE_NETWORK): label
        for label, preset in model_presets().items()
    }


def normalise(body: JsonObject) -> JsonObject:
    """A body with its preset applied, aliases renamed and short forms expanded, as `merge` expects it."""
    return _apply_preset(_normalise(body))


def _normalise(body: JsonObject) -> JsonObject:
    """Aliases to their names and short forms to objects, at the two levels where they are accepted."""
    body = _rename_aliases(body, TOP_ALIASES, "")
    for key in SHORT_FORMS:
        if isinstance(body.get(key), str):
            body[key] = {"name": body[key]}
        elif key == "lr_scheduler" and key in body and body[key] is None:
            body[key] = {"name": "constant"}
    if isinstance(body.get("optimizer"), dict):
        body["optimizer"] = _rename_aliases(body["optimizer"], ALIASES, "optimizer.")
    for key in OPTIMIZER_KEYS:
        if key in body and isinstance(optimizer := body.setdefault("optimizer", {}), dict):
            if key in optimizer:
                fail(key, f"is given twice, here and as optimizer.{key}; leave one out")
            optimizer[key] = body.pop(key)
    return body


def _rename_aliases(part: JsonObject, aliases: dict[str, str], prefix: str) -> JsonObject:
    renamed: JsonObject = {}
    for key, value in part.items():
        name = aliases.get(key, key)
        if name in renamed:
            fail(f"{prefix}{name}", "is given twice, once by an alias; leave one out")
        renamed[name] = value
    return renamed


def _apply_preset(body: JsonObject) -> JsonObject:
    if "preset" not in body:
        return body
    name, presets = body.pop("preset"), experiment_presets()
    if not isinstance(name, str) or name not in presets:
        shown = name if isinstance(name, str | int | float) else None
        fail("preset", f"there is no preset {describe(name)}", value=shown, nearest=nearest_word(name, presets))
    base = _normalise(presets[name])
    if "optimizer" in base:
        base["optimizer"] = {"name": "sgd", **base["optimizer"]}
    return merge(base, body)


def merge(base: JsonObject, changes: JsonObject) -> JsonObject:
    """`changes` over `base`, key by key; a part that names another kind (`name`) replaces the whole part."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name"):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _expand_model(body: JsonObject) -> JsonObject:
    """Replace a network preset's name by its spec."""
    presets = model_presets()
    known = [*presets, *FAMILIES]
    if "model" not in body:
        fail("model", "is missing; name a network", nearest="baseline", choices=known)
    model = body["model"]
    if not isinstance(model, dict):
        number = model if isinstance(model, int | float) else None
        fail("model", f"must be a preset's name or an object, not {describe(model)}", value=number, nearest="baseline")
    name = model.get("name", "cnn" if "blocks" in model else None)
    if not isinstance(name, str) or (name not in presets and network_class(name) is None):
        if "name" not in model:
            fail("model.name", "is missing; name a network", nearest="baseline", choices=known)
        what = f"there is no network {describe(name)}"
        shown = name if isinstance(name, str | int | float) else None
        fail("model.name", what, value=shown, nearest=nearest_word(name, known), choices=known)
    return {**body, "model": {**presets.get(name, {}), **model, "name": presets.get(name, {}).get("name", name)}}


def _check_kinds(body: JsonObject) -> None:
    """Fill in the optimizer's kind, and refuse an unknown kind with the nearest known one."""
    if isinstance(body.get("optimizer"), dict):
        body["optimizer"] = {"name": "sgd", **body["optimizer"]}
    for part, kinds in PARTS.items():
        value = body.get(part)
        if not isinstance(value, dict) or ("name" in value and value["name"] in list(kinds)):
            continue
        if "name" not in value:
            fits = next((kind for kind, cls in kinds.items() if value.keys() <= cls.model_fields.keys()), None)
            fail(f"{part}.name", "is missing", nearest=fits, choices=list(kinds))
        given = value["name"]
        shown = given if isinstance(given, str | int | float) else None
        what = f"there is no {part} {describe(given)}"
        fitting = [kind for kind, cls in kinds.items() if value.keys() <= cls.model_fields.keys()]
        nearest = nearest_word(given, fitting) or nearest_word(given, kinds) or next(iter(fitting or kinds))
        fail(f"{part}.name", what, value=shown, nearest=nearest, choices=list(kinds))
