"""Parses a submitted body into a study and its rows, each with a complete experiment's spec.

All errors are reported together, each with its field: variants[2].overrides.optimizer.lr.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as defaulted
from functools import lru_cache
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from models.errors import FieldError, SpecError, StudyError
from models.plain import JsonObject
from models.spec.changes import with_changes
from models.spec.experiment import ExperimentSpec
from models.spec.explain import KINDS, describe, nearest_word, shorten
from models.spec.overrides import overlap, spec_with
from models.spec.parse import OPTIMIZER_KEYS
from models.spec.plain import copy_plain
from models.spec.presets import experiment_presets, model_presets, study_presets
from models.spec.search import SearchSpec
from models.spec.study import (
    BASE,
    MAX_KEY,
    MAX_ROWS,
    MAX_RUNS,
    Published,
    RepeatUntil,
    SectionSpec,
    StudySpec,
    VariantSpec,
)
from models.spec.trials import SpacePoint, check_space

Body = JsonObject
Entry = FieldError
FIX = "docs/http.md describes a study; GET /api/v1/schema every field of an experiment"
MOST_ENTRIES = 50
KEPT_STUDIES, KEPT_LENGTH = 16, 100_000
"""Stored studies that are kept as objects, and the length of the longest that is: the lab report has 20,000."""
SHORT_KEY = 3
"""Characters up to which two keys that differ in one of them are two different rows."""
MOST_NAMED = 20
"""Rows that a message lists."""
ALL_EPOCHS = 1_000_000
"""More epochs than any row has."""


@dataclass(frozen=True)
class Row:
    """One row of a study before it is run: `spec` is that of its first seed."""

    key: str
    title: str
    question: str
    spec: ExperimentSpec
    baseline: str | None
    """Key of the row that it is compared with; None for the study's baseline itself."""
    published: Published | None = None
    share: float = 1.0
    min_epochs: int = 1
    num_seeds: int = 1
    when_shortened: Mapping[str, Any] = defaulted(default_factory=dict)
    place: str = ""
    """Where the row is written in the study's body: variants[2], grid or base."""


def field_in_study(name: str, place: str, overrides: Mapping[str, Any]) -> str:
    """A field of a row's spec, as the place in the study's body that decides it."""
    top = name.partition(".")[0]
    if place.startswith("variants["):
        named = {str(key).partition(".")[0] for key in overrides}
        own = top in named or "preset" in named or (top == "optimizer" and named & {"lr", "momentum", "weight_decay"})
        return f"{place}.overrides.{name}" if own else f"base.{name}"
    if place == "search.space" and any(overlap(name, key) for key in overrides):
        return f"search.space.{next(key for key in overrides if overlap(name, key))}"
    if place == "grid" and any(overlap(name, key) for key in overrides):
        return f"grid.{next(key for key in overrides if overlap(name, key))}"
    return f"base.{name}"


@dataclass(frozen=True)
class Parsed:
    """A study, and the rows that its base, variants or grid make."""

    spec: StudySpec
    rows: tuple[Row, ...]
    overrides: Mapping[str, Mapping[str, Any]]
    """The changes of each row, by its key; later errors refer to them."""
    points: tuple[SpacePoint, ...] = ()
    """Points of a search's space, whose networks are to be built before it is accepted."""


def parse_study(body: Any) -> Parsed:
    """Read a POSTed body into a study and its rows, or one of the package's own named by `preset`, with changes.

    Raises StudyError with an entry for each field that is wrong, of the study and of any row.
    """
    body = copy_plain(body)
    if not isinstance(body, dict):
        _refuse([{"field": "body", "message": f"a study is an object with keys, not {describe(body)}"}])
    body = _apply_preset(body)
    if isinstance(body.get("base"), str):
        body["base"] = _named(body["base"])
    try:
        spec = StudySpec.model_validate_json(json.dumps(body))
    except ValidationError as error:
        found = [item for item in error.errors(include_url=False) if not _is_other_form(item)]
        _refuse([_explain(item) for item in found[:MOST_ENTRIES]])
    return expand(spec)


def _named(name: str) -> Body:
    """The base spec that a name stands for: a network, or a whole experiment."""
    if name in model_presets():
        return {"model": name}
    if name not in experiment_presets():
        entry: Entry = {"field": "base", "message": f"there is no network and no preset {describe(name)}"}
        nearest = nearest_word(name, [*model_presets(), *experiment_presets()])
        _refuse([{**entry, "nearest": nearest} if nearest else entry])
    return {"preset": name}


def load_study(stored: Body) -> StudySpec:
    """Read a study's spec that was stored. `keeps_epochs` of earlier versions is min_epochs with all of them."""
    text = json.dumps(stored)
    return _known_study(text) if len(text) <= KEPT_LENGTH else _load_study(text)


@lru_cache(KEPT_STUDIES)
def _known_study(text: str) -> StudySpec:
    """Workers read a running study once a second, and pages poll it."""
    return _load_study(text)


def _load_study(text: str) -> StudySpec:
    stored = copy_plain(json.loads(text))
    for variant in stored.get("variants", []):
        if variant.pop("keeps_epochs", False):
            variant["min_epochs"] = ALL_EPOCHS
    return StudySpec.model_validate_json(json.dumps(stored))


def expand(spec: StudySpec) -> Parsed:
    """Make the rows of a study; a search has none yet. Raises StudyError with every field that cannot be run."""
    if spec.search is not None:
        points, wrong = check_space(spec)
        refuse(wrong)
        return Parsed(spec, (), {}, tuple(points))
    refuse(list(_wrong_grid(spec)))
    variants = list(spec.variants) or list(_grid_rows(spec))
    place = "variants[{}]" if spec.variants else "grid"
    problems: list[Entry] = []
    rows: list[Row] = []
    for number, variant in enumerate(variants):
        where = place.format(number)
        try:
            row_spec = spec_with(spec, variant.overrides, variant.title or variant.key)
        except SpecError as error:
            problems += relocated(error, where, variant.key, variant.overrides)
            continue
        rows.append(
            Row(
                key=variant.key,
                title=variant.title or variant.key,
                question=variant.question,
                spec=row_spec,
                baseline=variant.baseline,
                published=variant.published,
                share=variant.share,
                min_epochs=variant.min_epochs,
                num_seeds=variant.seeds or spec.num_seeds,
                when_shortened=variant.when_shortened,
                place=where,
            )
        )
        try:
            with_changes(row_spec, variant.when_shortened)
        except SpecError as error:
            problems += [{**entry, "field": f"{where}.when_shortened.{entry['field']}"} for entry in error.errors]
    problems += _repeated(spec.variants)
    rows, more = _with_baseline(spec, rows)
    problems += more
    keys = {variant.key for variant in variants} | {row.key for row in rows}
    problems += list(_unknown_keys(spec, keys))
    problems += list(_too_many(rows))
    if problems:
        _refuse(_once(problems))
    overrides = {variant.key: variant.overrides for variant in variants}
    return Parsed(spec, tuple(rows), overrides)


def relocated(error: SpecError, place: str, key: str, overrides: Mapping[str, Any]) -> list[Entry]:
    """The entries of a row's error, with fields as places in the study's body."""
    found: list[Entry] = []
    for entry in error.errors:
        field = field_in_study(str(entry["field"]), place, overrides)
        message = f"{entry['message']} (row '{shorten(key)}')" if field.startswith("base") else entry["message"]
        found.append({**entry, "field": field, "message": message})
    return found


def refuse(entries: Sequence[Entry]) -> None:
    """Raise StudyError if there are entries."""
    if entries:
        _refuse(_once(entries))


def with_seed(spec: ExperimentSpec, seed: int) -> ExperimentSpec:
    """The same spec with another seed; its split stays, so that runs are measured on the same images."""
    return spec if spec.seed == seed else with_changes(spec, {"seed": seed})


def cloned(body: Body, changes: Body) -> Body:
    """A stored study's body with other values for some of its keys; `overrides`, `base` and `grid` are replaced."""
    ways: Body = {"variants": [], "grid": {}, "search": None}
    if given := [way for way in ways if changes.get(way)]:
        body = {**body, **{way: empty for way, empty in ways.items() if way not in given}}
    if "seeds" in changes:
        body = {**body, "repeat_until": None}
    if "repeat_until" in changes or "budget" in changes:
        body = {key: value for key, value in body.items() if key != "seeds" or "repeat_until" not in changes}
    kept = {key: value for key, value in {**body, **changes}.items() if value is not None}
    if "repeat_until" in kept and "seeds" not in changes:
        kept.pop("seeds", None)
    return kept


def _apply_preset(body: Body) -> Body:
    if "preset" not in body:
        return body
    name, presets = body.pop("preset"), study_presets()
    if not isinstance(name, str) or name not in presets:
        entry: Entry = {"field": "preset", "message": f"there is no study {describe(name)}"}
        nearest = nearest_word(name, presets)
        _refuse([{**entry, "nearest": nearest} if nearest else entry])
    return {**presets[name], **body}


def _wrong_grid(spec: StudySpec) -> Iterator[Entry]:
    """Values that are given twice, and more combinations than a study holds."""
    for field, values in spec.grid.items():
        words = [_word(value) for value in values]
        if twice := next((word for word in words if words.count(word) > 1), None):
            yield {"field": f"grid.{field}", "message": f"holds {shorten(twice)} twice"}
    if (combinations := math.prod(len(values) for values in spec.grid.values())) > MAX_ROWS:
        message = f"makes {combinations:,} rows, every combination of its values; a study holds {MAX_ROWS}"
        yield {"field": "grid", "message": message}


def _grid_rows(spec: StudySpec) -> Iterator[VariantSpec]:
    """Every combination of the grid's values, the last field changing first."""
    fields = list(spec.grid)
    known: set[str] = set()
    for number, values in enumerate(itertools.product(*spec.grid.values()), start=1):
        changed = dict(zip(fields, values, strict=True))
        title = ", ".join(f"{field} {_word(value)}" for field, value in changed.items())
        key = ",".join(f"{field}={_key_word(value)}" for field, value in changed.items())[:MAX_KEY]
        if key in known:  # values that a key cannot tell apart: long ones, or of other letters
            key = f"{key[: MAX_KEY - 5]}-{number}"
        known.add(key)
        yield VariantSpec(key=key, title=title[:2000], overrides=changed)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _key_word(value: Any) -> str:
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._+-") else "_" for letter in _word(value)
    )


def _with_baseline(spec: StudySpec, rows: list[Row]) -> tuple[list[Row], list[Entry]]:
    """The rows with the one that they are compared with, which is added in front if it is the base spec itself."""
    known = {row.key for row in rows}
    wanted = spec.baseline or (BASE if BASE in known else None)
    more: list[Entry] = []
    if wanted is None or (wanted == BASE and BASE not in known):
        try:
            base = spec_with(spec, {}, "base")
        except SpecError as error:
            if wanted == BASE:
                more = [{**entry, "field": f"base.{entry['field']}"} for entry in error.errors]
            wanted = rows[0].key if rows else wanted
        else:
            same = next((row.key for row in rows if row.spec.digest() == base.digest()), None)
            if spec.grid and wanted is None:
                same = same or (rows[0].key if rows else None)
            if same is None:
                rows = [Row(BASE, "the base spec", "", base, None, num_seeds=spec.num_seeds, place="base"), *rows]
            wanted = same or BASE
    return [replace(row, baseline=None if row.key == wanted else row.baseline or wanted) for row in rows], more


def _repeated(variants: Sequence[VariantSpec]) -> list[Entry]:
    seen: dict[str, int] = {}
    found: list[Entry] = []
    for number, variant in enumerate(variants):
        if variant.key in seen:
            message = f"'{shorten(variant.key)}' is the key of variants[{seen[variant.key]}] too; keys are unique"
            found.append({"field": f"variants[{number}].key", "message": message, "value": shorten(variant.key)})
        seen.setdefault(variant.key, number)
    return found


def _unknown_keys(spec: StudySpec, keys: set[str]) -> Iterator[Entry]:
    places: list[tuple[str, str | None]] = [("baseline", None if spec.baseline == BASE else spec.baseline)]
    places += [(f"variants[{i}].baseline", variant.baseline) for i, variant in enumerate(spec.variants)]
    for i, variant in enumerate(spec.variants):
        if variant.baseline == variant.key:
            yield {
                "field": f"variants[{i}].baseline",
                "message": "is the row itself; name another row, or leave it out",
            }
    for i, section in enumerate(spec.sections):
        places += [(f"sections[{i}].rows[{j}]", key) for j, key in enumerate(section.rows)]
        places += [(f"sections[{i}].learning_rate_test", section.learning_rate_test)]
        places += [(f"sections[{i}].published_curves.{key}", key) for key in section.published_curves]
    for field, key in places:
        if key is not None and key not in keys:
            nearest = _nearest_key(key, sorted(keys))
            rows = f"; the rows are {', '.join(map(shorten, sorted(keys)))}" if len(keys) <= MOST_NAMED else ""
            message = f"there is no row '{shorten(key)}'{rows}"
            entry: Entry = {"field": field, "message": message, "value": shorten(key)}
            yield {**entry, "nearest": nearest} if nearest else entry


def _nearest_key(key: str, keys: Sequence[str]) -> str | None:
    """The key that was meant. Short keys are numbers of rows: `6a` is no misspelt `3a`, but `3A` is `3a`."""
    plain = {re.sub(r"[^a-z0-9]", "", each.lower()): each for each in keys}
    if (found := plain.get(re.sub(r"[^a-z0-9]", "", key.lower()))) is not None:
        return found
    same_numbers = [each for each in keys if re.findall("[0-9]+", each) == re.findall("[0-9]+", key)]
    return nearest_word(key, [each for each in same_numbers if min(len(each), len(key)) > SHORT_KEY])


def _too_many(rows: Sequence[Row]) -> Iterator[Entry]:
    num_rows, runs = len(rows), sum(row.num_seeds for row in rows)
    if runs > MAX_RUNS:
        message = f"makes {runs:,} runs of {num_rows} rows; a study holds {MAX_RUNS:,}"
        yield {"field": "seeds", "message": message, "nearest": max(1, MAX_RUNS // num_rows)}


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """Merge equal entries: a problem of the base occurs in every row."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        message = str(entry["message"]).partition(" (row '")[0]
        found.setdefault((str(entry["field"]), message), entry)
    return list(found.values())[:MOST_ENTRIES]


def _refuse(entries: Sequence[Entry]) -> NoReturn:
    raise StudyError(list(entries), fix=FIX)


PARTS: dict[str, type[BaseModel]] = {
    "variants": VariantSpec,
    "sections": SectionSpec,
    "published": Published,
    "search": SearchSpec,
    "repeat_until": RepeatUntil,
}


def _is_other_form(item: ErrorDetails) -> bool:
    """Whether an error is about the form of `seeds` that was not taken: a number, or a list."""
    form = item["loc"][1:] if item["loc"][:1] == ("seeds",) else ()
    return len(form) == 1 and (form == ("int",)) == isinstance(item["input"], list | tuple)


def _explain(item: ErrorDetails) -> Entry:
    context, kind, value = item.get("ctx", {}), item["type"], item["input"]
    location = [part for part in item["loc"] if part != "int" and not str(part).startswith("tuple[")]
    if kind == "rule":
        location += [context["field"]] if context.get("field") else []
        entry: Entry = {"field": _field(location), "message": context["message"]}
        return {**entry, "nearest": context["nearest"]} if "nearest" in context else entry
    if kind == "extra_forbidden":
        words = [part for part in location[:-1] if isinstance(part, str)]
        known = list(PARTS.get(words[-1] if words else "", StudySpec).model_fields)
        if not words and location[-1] in (*ExperimentSpec.model_fields, "preset", *OPTIMIZER_KEYS):
            return _of_the_base(str(location[-1]), value)
        meant = nearest_word(location[-1], known)
        hint = f"; did you mean '{meant}'?" if meant else f"; it has {', '.join(known)}"
        entry = {"field": _field(location), "message": f"unknown key '{shorten(str(location[-1]))}'{hint}"}
        return {**entry, "nearest": meant} if meant else entry
    message = KINDS.get(kind, item["msg"][:1].lower() + item["msg"][1:]).format(**context)
    if kind in ("enum", "literal_error"):
        message = f"must be {context['expected']}"
    if location == ["seeds"] and kind in ("int_type", "int_from_float", "tuple_type"):
        message = "must be how many seeds (3) or which ([0, 7])"
    if kind == "too_short" and isinstance(value, str):
        message = "needs at least {min_length} characters".format(**context)
    if context.get("min_length") == 1:
        message = message.replace("entries", "entry").replace("characters", "character")
    if kind == "string_pattern_mismatch":
        message = "must be letters, digits and any of . _ + , = -, and begin with a letter or digit"
    entry = {"field": _field(location), "message": message}
    if kind == "missing":
        return entry
    num_entries = kind in ("too_short", "too_long") and not isinstance(value, str)
    entry["message"] += f", not {len(value) if num_entries else describe(value)}"
    if location and location[-1] == "published":
        entry["message"] += "; write {val_accuracy: 0.72}"
    if kind == "tuple_type" and location[0] in ("combine", "grid") and isinstance(value, str | int | float):
        return {**entry, "nearest": [value]}
    limit = context.get("ge", context.get("le"))
    if kind == "enum":
        limit = nearest_word(value, re.findall(r"'([^']+)'", str(context["expected"])))
    return entry if limit is None else {**entry, "nearest": limit}


def _of_the_base(key: str, value: Any) -> Entry:
    """A field of an experiment's spec that stands beside those of the study."""
    shown = describe(value) if isinstance(value, str | int | float | bool) else "..."
    message = f"is a field of an experiment; write base: {{{key}: {shown}}}, or POST the spec to /api/v1/experiments"
    return {"field": key, "message": message, "nearest": f"base.{key}"}


def _field(location: Sequence[int | str]) -> str:
    """A place as it is written in messages: variants[2].overrides."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shorten(part)}" for part in location)
    return text.removeprefix(".") or "body"
