"""From what a person wrote to an ExperimentSpec: presets, aliases and short forms in, one clear error a field out.

{"preset": "lab-report/6e", "epochs": 10}   that preset with one thing changed
{"model": "baseline"}                       a network preset by name
{"optimizer": "adam"}                       the short form of {"optimizer": {"name": "adam"}}
{"optimizer": {"learning_rate": 0.1}}       `learning_rate`, `wd` and `scheduler` are aliases
"""

import difflib
import json
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from models.errors import SpecError
from models.spec import training
from models.spec.experiment import ExperimentSpec
from models.spec.model import CnnSpec, FastResNetSpec, ModelSpec, ZooName, ZooSpec
from models.spec.presets import experiment_presets, model_presets

Body = dict[str, Any]

ALIASES = {"learning_rate": "lr", "wd": "weight_decay", "scheduler": "lr_scheduler"}
SHORT_FORMS = ("dataset", "model", "optimizer", "lr_scheduler")
FAMILIES: dict[str, type[BaseModel]] = {
    "cnn": CnnSpec,
    "fast_resnet": FastResNetSpec,
    **{name.value: ZooSpec for name in ZooName},
}
DISCRIMINATED = {
    "optimizer": [cls.model_fields["name"].default for cls in get_args(get_args(training.OptimizerSpec)[0])],
    "lr_scheduler": [cls.model_fields["name"].default for cls in get_args(get_args(training.LrSchedulerSpec)[0])],
}


def parse_spec(body: Any) -> ExperimentSpec:
    """Read a POSTed body into a complete spec.

    Raises SpecError with one entry a field: where, what was wrong, and the nearest valid value where there is one.
    """
    if not isinstance(body, dict):
        _fail("body", f"a spec is an object with keys, not {_describe(body)}", nearest={"model": "baseline"})
    body = _apply_preset(_normalise(body))
    body = _expand_model(body)
    try:
        text = json.dumps(body, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        _fail(_find_unserialisable(body), f"must be plain JSON with finite numbers ({error})")
    try:
        return ExperimentSpec.model_validate_json(text)
    except ValidationError as error:
        raise SpecError(list(_explain(error, body)), fix="GET /api/v1/schema describes every field") from None


def load_spec(stored: Body) -> ExperimentSpec:
    """Read a spec that was stored by this version or an earlier one: complete already, so nothing is expanded."""
    return ExperimentSpec.model_validate_json(json.dumps(stored))


def model_label(model: BaseModel) -> str:
    """The preset's name if the network is one of the presets, else its family: baseline, wide, cnn, squeezenet1_1."""
    return _labels().get(model.model_dump_json(exclude={"input_size"}), str(model.name))  # type: ignore[attr-defined]


def _labels() -> dict[str, str]:
    return {
        FAMILIES[preset["name"]].model_validate_json(json.dumps(preset)).model_dump_json(exclude={"input_size"}): label
        for label, preset in model_presets().items()
    }


def _normalise(body: Body) -> Body:
    """Aliases to their names and short forms to objects, at the two levels where they may stand."""
    body = _rename_aliases(body, "")
    for key in SHORT_FORMS:
        if isinstance(body.get(key), str):
            body[key] = {"name": body[key]}
        elif key == "lr_scheduler" and key in body and body[key] is None:
            body[key] = {"name": "constant"}
        elif isinstance(body.get(key), dict):
            body[key] = _rename_aliases(body[key], f"{key}.")
    for key in ("lr", "weight_decay", "momentum"):
        if key in body and (optimizer := body.setdefault("optimizer", {})).__class__ is dict:
            if key in optimizer:
                _fail(key, f"is given twice, here and as optimizer.{key}; leave one out")
            optimizer[key] = body.pop(key)
    return body


def _rename_aliases(part: Body, prefix: str) -> Body:
    renamed: Body = {}
    for key, value in part.items():
        name = ALIASES.get(key, key)
        if name in renamed:
            _fail(f"{prefix}{name}", "is given twice, once by an alias; leave one out")
        renamed[name] = value
    return renamed


def _apply_preset(body: Body) -> Body:
    if "preset" not in body:
        return body
    name, presets = body.pop("preset"), experiment_presets()
    if not isinstance(name, str) or name not in presets:
        _fail("preset", f"there is no preset {_describe(name)}", value=name, nearest=_nearest(name, presets))
    return _merge(_normalise(presets[name]), body)


def _merge(base: Body, changes: Body) -> Body:
    """`changes` over `base`, key by key; a part that names another kind (`name`) replaces the whole part."""
    merged = deepcopy(base)
    for key, value in changes.items():
        old = merged.get(key)
        same_kind = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name")
        )
        merged[key] = _merge(old, value) if same_kind and isinstance(old, dict) else value
    return merged


def _expand_model(body: Body) -> Body:
    """Replace a network preset's name by what it stands for, and fill in names that a part may leave out."""
    known = [*model_presets(), *FAMILIES]
    if "model" not in body:
        _fail("model", "is missing; name a network", nearest="baseline", choices=known)
    model = body["model"]
    if not isinstance(model, dict):
        _fail("model", f"must be a preset's name or an object, not {_describe(model)}", value=model, nearest="baseline")
    name = model.get("name", "cnn" if "blocks" in model else None)
    if not isinstance(name, str) or (name not in known):
        _fail(
            "model.name",
            f"there is no network {_describe(name)}",
            value=name,
            nearest=_nearest(name, known),
            choices=known,
        )
    presets = model_presets()
    expanded = {**presets[name], **model, "name": presets[name]["name"]} if name in presets else {**model, "name": name}
    result = {**body, "model": expanded}
    optimizer = result.get("optimizer")
    if isinstance(optimizer, dict):
        result["optimizer"] = {"name": "sgd", **optimizer}
    for part, choices in DISCRIMINATED.items():
        if isinstance(value := result.get(part), dict) and value.get("name") not in choices:
            given = value.get("name")
            what = f"there is no {part} {_describe(given)}" if "name" in value else "is missing"
            _fail(f"{part}.name", what, value=given, nearest=_nearest(given, choices), choices=choices)
    return result


def _explain(error: ValidationError, body: Body) -> Iterable[dict[str, Any]]:
    family = FAMILIES[body["model"]["name"]]
    for item in error.errors(include_url=False):
        location = list(item["loc"])
        if location[:1] == ["model"] and len(location) > 1:
            if location[1] != family.__name__:
                continue  # another class of the union was tried; its complaints are beside the point
            del location[1]
        elif location[:1] and location[0] in DISCRIMINATED and len(location) > 1:
            del location[1]
        yield _explain_one(item, [part for part in location if part not in ("literal['balanced']",)])


def _explain_one(item: ErrorDetails, location: list[int | str]) -> dict[str, Any]:
    context, kind, value = item.get("ctx", {}), item["type"], item["input"]
    field = ".".join(str(part) for part in location) or "body"
    entry: dict[str, Any] = {"field": field, "message": _lower_first(item["msg"].removeprefix("Value error, "))}
    if kind == "extra_forbidden":
        siblings = _keys_at(location[:-1])
        nearest = _nearest(str(location[-1]), siblings)
        entry["message"] = f"unknown key '{location[-1]}'" + (f"; did you mean '{nearest}'?" if nearest else "")
        if nearest:
            entry["nearest"] = nearest
        return entry
    if kind == "missing":
        entry["message"] = "is missing"
        return entry
    if isinstance(value, str | int | float | bool) or value is None:
        entry["value"] = value
        entry["message"] += f", not {_describe(value)}"
    for bound in ("ge", "le"):
        if bound in context:
            entry["nearest"] = context[bound]
    if "expected" in context:
        choices = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
        entry["nearest"] = _nearest(value, choices) or choices[0]
    return entry


def _keys_at(location: list[int | str]) -> list[str]:
    """The keys that may stand at a place in the spec, for naming the nearest one."""
    candidates: list[type[BaseModel]] = [ExperimentSpec]
    for part in location:
        if isinstance(part, int):
            continue
        candidates = [
            found
            for cls in candidates
            if part in cls.model_fields
            for found in _models_in(cls.model_fields[part].annotation)
        ]
    keys = [key for cls in candidates for key in cls.model_fields]
    return [*keys, "preset"] if not location else keys


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if annotation is ModelSpec:
        return [CnnSpec, ZooSpec, FastResNetSpec]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _nearest(word: Any, choices: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(str(word), [str(choice) for choice in choices], n=1, cutoff=0.5)
    return found[0] if found else None


def _find_unserialisable(body: Any, place: str = "body") -> str:
    """Where in the body the first value stands that JSON cannot carry."""
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in items:
        try:
            json.dumps(value, allow_nan=False)
        except RecursionError:
            return place
        except (ValueError, TypeError):
            return _find_unserialisable(value, str(key) if place == "body" else f"{place}.{key}")
    return place


def _describe(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _fail(field: str, message: str, **extra: Any) -> NoReturn:
    entry = {"field": field, "message": message, **{key: value for key, value in extra.items() if value is not None}}
    raise SpecError([entry], fix="GET /api/v1/schema describes every field; GET /api/v1/presets lists what is ready")
