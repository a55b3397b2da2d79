"""Error messages for an invalid spec: one entry per field, with the nearest valid value.

Pydantic finds the errors; its words are for programmers, and of a union it reports every member that did not fit.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from models.errors import FieldError, SpecError
from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec
from models.spec.kinds import KINDS_OF, PARTS, part_class
from models.spec.owners import CLOSE_ELSEWHERE, Owner, closest, meant_fields, models_in, owners, owners_of

Location = list[int | str]

LONGEST = 60
"""Characters of a value that are shown."""
MOST_ENTRIES = 50
MOST_KINDS = 12
"""Kinds of a part that a message lists."""
MOST_GUESSES = 10
"""Unknown keys for which the one that was meant is looked for."""
SCHEMA = "GET /api/v1/schema describes every field"

KINDS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of a sensible size",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "model_type": "must be an object with keys",
    "model_attributes_type": "must be an object with keys",
    "dict_type": "must be an object with keys",
    "greater_than": "must be greater than {gt:.10g}",
    "less_than": "must be less than {lt:.10g}",
    "greater_than_equal": "must be at least {ge:.10g}",
    "less_than_equal": "must be at most {le:.10g}",
    "too_short": "needs at least {min_length} entries",
    "too_long": "may have at most {max_length} entries",
    "string_too_short": "needs at least {min_length} character",
    "string_too_long": "may have at most {max_length} characters",
    "string_pattern_mismatch": "must be of the form {pattern}",
    "missing": "is missing",
}
"""Messages for pydantic's error types, in terms of JSON."""


def fail(
    field: str, message: str, *, value: Any = None, nearest: Any = None, choices: list[str] | None = None
) -> NoReturn:
    """Raise a SpecError about one field; what is None is left out."""
    entry: FieldError = {"field": field, "message": message}
    if value is not None:
        entry["value"] = shorten(value) if isinstance(value, str) else value
    if nearest is not None:
        entry["nearest"] = nearest
    if choices is not None:
        entry["choices"] = choices
    raise SpecError([entry], fix=f"{SCHEMA}; GET /api/v1/presets lists what is ready")


def explain(error: ValidationError, body: JsonObject) -> SpecError:
    """Explain the errors of a body whose `model`, `optimizer` and `lr_scheduler` have existing names."""
    entries: list[FieldError] = []
    weights: list[ErrorDetails] = []
    unknown = more = 0
    for item in error.errors(include_url=False):
        location = _locate(item["loc"])
        if _follows_from_another(item):
            continue
        if location[:1] == ["class_weights"]:
            weights.append(item)
        elif len(entries) == MOST_ENTRIES:
            more += 1
        elif item["type"] == "extra_forbidden" and (unknown := unknown + 1) > MOST_GUESSES:
            entries.append({"field": field_of(location), "message": f"unknown key '{shorten(str(location[-1]))}'"})
        else:
            entries.append(_explain_one(item, location, body))
    if weights:
        entries.append(_explain_class_weights(body["class_weights"]))
    if more:
        entries.append({"field": "body", "message": f"and {more} more errors"})
    return SpecError(entries, fix=SCHEMA)


def unknown_keys(error: ValidationError) -> set[str]:
    """The fields that were refused because their part has no such key."""
    return {field_of(_locate(item["loc"])) for item in error.errors() if item["type"] == "extra_forbidden"}


def _locate(loc: Sequence[int | str]) -> Location:
    """A place in the body. Pydantic adds the kind of a part that comes in kinds."""
    location = list(loc)
    if location[:1] and location[0] in PARTS and len(location) > 1:
        del location[1]
    return location


def _follows_from_another(item: ErrorDetails) -> bool:
    """Whether a list was called too short only because its entries were dropped for errors of their own."""
    given = item["input"]
    return item["type"] == "too_short" and isinstance(given, list) and len(given) >= item["ctx"]["min_length"]


def _explain_one(item: ErrorDetails, location: Location, body: JsonObject) -> FieldError:
    context, kind, value = item.get("ctx", {}), item["type"], item["input"]
    if kind == "extra_forbidden":
        return _explain_unknown_key(location, body)
    if kind == "rule":
        location = [*location, *([context["field"]] if context.get("field") else [])]
        entry: FieldError = {"field": field_of(location), "message": context["message"]}
        return {**entry, "nearest": context["nearest"]} if "nearest" in context else entry
    message = KINDS[kind].format(**context) if kind in KINDS else item["msg"][:1].lower() + item["msg"][1:]
    if kind in ("enum", "literal_error"):
        message = f"must be {context['expected']}"
    if context.get("min_length") == 1:
        message = message.replace("entries", "entry")
    entry = {"field": field_of(location), "message": message}
    if kind == "missing":
        return entry
    if kind in ("too_short", "too_long"):
        entry["message"] += f", not {len(value)}"
    else:
        entry["message"] += f", not {describe(value)}"
    if isinstance(value, str | int | float | bool) or value is None:
        entry["value"] = shorten(value) if isinstance(value, str) else value
    nearest = _nearest_value(kind, context, value)
    if kind == "string_too_short" and isinstance(location[-1], str):
        default = _class_at(location[:-1], body)[0].model_fields.get(str(location[-1]))
        nearest = default.default if default is not None and isinstance(default.default, str) else None
    return entry if nearest is None else {**entry, "nearest": nearest}


def _nearest_value(kind: str, context: JsonObject, value: Any) -> Any:
    """Return the closest value that satisfies this rule, if it can be derived from the given one."""
    if "ge" in context or "le" in context:
        return context.get("ge", context.get("le"))
    if kind in ("enum", "literal_error"):
        choices = [word.strip(" '") for word in context["expected"].replace(" or ", ", ").split(",")]
        if all(choice.isdigit() for choice in choices):
            numbers = [int(choice) for choice in choices]
            given = value if isinstance(value, int | float) else numbers[-1]
            return min(numbers, key=lambda number: abs(number - given))
        return nearest_word(value, choices) or choices[0]
    if kind == "bool_type" and value in (0, 1, "true", "false", "yes", "no"):
        return value in (1, "true", "yes")
    if kind == "int_from_float" or (kind == "int_type" and isinstance(value, float)):
        return round(value)
    if kind == "string_too_long":
        return value[: context["max_length"]]
    if kind == "too_long" and len(json.dumps(value)) < 1000:
        return value[: context["max_length"]]
    if kind in ("int_type", "float_type", "int_parsing", "float_parsing") and isinstance(value, str):
        return _number_in(value, whole=kind.startswith("int"))
    return None


def _number_in(text: str, *, whole: bool) -> int | float | None:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        return None


def _explain_unknown_key(location: Location, body: JsonObject) -> FieldError:
    """A key that its place does not have: the field it means there, the part it belongs to, or the nearest spelling."""
    key = str(location[-1])
    cls, kind = _class_at(location[:-1], body)
    known = [name for name in cls.model_fields if not (kind and name == "name")]
    here = [*known, "preset"] if len(location) == 1 else known
    what = f"{kind} has no '{shorten(key)}'" if kind else f"unknown key '{shorten(key)}'"
    entry: FieldError = {"field": field_of(location), "message": f"{what}; it has {', '.join(known)}" if kind else what}
    meant = next((field for field in meant_fields(key) if field in here), None)
    if meant is None and (found := owners_of(key, tuple(location[:-1]), body)):
        return _explain_owner(what, found, location, known if kind else None)
    if meant is None:
        meant, alike = closest(key, here)
        elsewhere, more_alike = closest(key, list(owners()), CLOSE_ELSEWHERE)
        if elsewhere and elsewhere not in here and more_alike > alike:
            found = owners_of(elsewhere, tuple(location[:-1]), body)
            return {**entry, "message": f"{what}; did you mean {found[0].place}?", "nearest": found[0].place}
    if meant:
        return {**entry, "message": f"{what}; did you mean '{meant}'?", "nearest": meant}
    return entry


def _explain_owner(what: str, found: list[Owner], location: Location, known: list[str] | None) -> FieldError:
    """The part that has the field; where that is this part, of another kind, which kinds have it."""
    first = found[0]
    if known is not None and first.path == tuple(location[:-1]):
        *most, last = (
            first.kinds
            if len(first.kinds) <= MOST_KINDS
            else (*first.kinds[:MOST_KINDS], f"{len(first.kinds) - MOST_KINDS} more")
        )
        kinds = f"{', '.join(most)} and {last} have" if most else f"{last} has"
        message = f"{what}; it has {', '.join(known)}; {kinds} '{first.field}'"
        return {"field": field_of(location), "message": message}
    homes = [field_of(owner.path) if owner.path else "the top level" for owner in found[:2]]
    message = f"{what} here; it belongs to {' or '.join(homes)}"
    if location[-1] != first.field:
        message += f", as '{first.field}'"
    if first.path:
        message += f": {first.example()}"
    return {"field": field_of(location), "message": message, "nearest": first.place}


def _class_at(location: Location, body: JsonObject) -> tuple[type[BaseModel], str | None]:
    """The class that a place in the body is read into, and its kind's name if it is one of several."""
    cls: type[BaseModel] = ExperimentSpec
    kind: str | None = None
    for depth, part in enumerate(location):
        if isinstance(part, int):
            continue
        if depth == 0 and part in KINDS_OF:
            kind = body[part]["name"]
            cls = part_class(part, str(kind))
        else:
            kind = None
            cls = next(models_in(cls.model_fields[part].annotation))
    return cls, kind


def _explain_class_weights(value: Any) -> FieldError:
    """One entry for a field that may be null, a word or a list."""
    rule = "must be null, 'balanced', or a list of one number a class, each from 0 to 1000000"
    if isinstance(value, list):
        wrong = [index for index, weight in enumerate(value) if not _is_weight(weight)]
        message = f"{rule}; entry {wrong[0]} is {describe(value[wrong[0]])}"
        mended = [weight if _is_weight(weight) else _mend_weight(weight) for weight in value[:1000]]
        return {"field": "class_weights", "message": message, "nearest": mended}
    entry: FieldError = {"field": "class_weights", "message": f"{rule}, not {describe(value)}"}
    if isinstance(value, str | int | float | bool):
        entry["value"] = shorten(value) if isinstance(value, str) else value
    return {**entry, "nearest": "balanced"}


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e6


def _mend_weight(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return min(max(float(value), 0.0), 1e6) if is_number else 1.0


def field_of(location: Sequence[int | str]) -> str:
    """A place as it is written in messages: model.blocks.0.convs."""
    return ".".join(shorten(str(part)) for part in location) or "body"


def nearest_word(word: Any, choices: Iterable[str]) -> str | None:
    """Return the choice spelled most like the word, whatever their case, if any is close."""
    by_folded = {str(choice).casefold(): str(choice) for choice in choices}
    found = difflib.get_close_matches(str(word)[:100].casefold(), by_folded, n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def describe(value: Any) -> str:
    """A value as a message shows it: as JSON if it is a single one, else what it is."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return json.dumps(shorten(value), ensure_ascii=False)
    return shorten(json.dumps(value)) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def shorten(text: str) -> str:
    """Text of at most 60 characters, with three dots where it was cut."""
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
