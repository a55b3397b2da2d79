"""A study's search: which fields of a spec are varied, over which values, and how the next trial is chosen.

{optimizer.lr: {log: [1e-4, 1e-1]}}         a number whose logarithm is drawn evenly
{optimizer.momentum: {uniform: [0, 0.99]}}  a number that is drawn evenly; with `step`, one of low, low + step, ...
{batch_size: {int: [16, 256], log: true}}   a whole number; with `step`, or with `log: true`
{model: [narrow, wide]}                     one of these values, as is {choice: [narrow, wide]}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from models.errors import FieldError
from models.plain import JsonObject
from models.spec.base import Spec
from models.spec.explain import describe, nearest_word, shorten

MAX_TRIALS = 200
DEFAULT_TRIALS = 30
MAX_FIELDS = 20
MAX_VALUES = 100
"""Values of one choice, and steps of one range in a grid."""
LARGEST = 1e15
"""Whole numbers above it are not all floats."""
DIGITS = 4
"""Significant digits of a drawn number: more of them decide nothing and are hard to read."""
FORM = "a list of values, {log: [low, high]}, {uniform: [low, high]}, {int: [low, high]} or {choice: [...]}"
KINDS = ("log", "uniform", "int", "choice")
OTHER_NAMES = {
    **dict.fromkeys(("linear", "lin", "float", "range", "real"), "uniform"),
    **dict.fromkeys(("loguniform", "log_uniform", "logarithmic"), "log"),
    **dict.fromkeys(("categorical", "choices", "values", "options"), "choice"),
    "integer": "int",
}
"""What the kinds are called elsewhere."""
EXTRAS = {"uniform": ("step",), "int": ("step", "log")}


class Sampler(StrEnum):
    """How the next trial is chosen."""

    TPE = "tpe"
    """Near the best trials so far (tree-structured Parzen estimator), after some at random."""
    RANDOM = "random"
    """At random."""
    GRID = "grid"
    """Every combination once, in a random order; each field needs a list, or a range with steps."""


class Pruner(StrEnum):
    """Which trials are ended early."""

    NONE = "none"
    """None of them."""
    MEDIAN = "median"
    """Those below the median of the trials that were run in full, at the same epoch."""
    ASHA = "asha"
    """Asynchronous successive halving: after each rung of epochs the best third continues."""


NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
STEP = {"type": "number", "exclusiveMinimum": 0}


def _object(kind: str, **others: Any) -> JsonObject:
    return {"type": "object", "properties": others, "required": [kind], "additionalProperties": False}


DIMENSION_SCHEMA: JsonObject = {
    "anyOf": [
        {"type": "array", "items": {}, "minItems": 1, "maxItems": MAX_VALUES},
        _object("choice", choice={"type": "array", "items": {}, "minItems": 1, "maxItems": MAX_VALUES}),
        _object("log", log=NUMBERS),
        _object("uniform", uniform=NUMBERS, step=STEP),
        _object("int", int=NUMBERS, step=STEP, log={"type": "boolean"}),
    ]
}


class SearchSpec(Spec):
    """A search for the best values of some of the base spec's fields: a row for each trial."""

    sampler: Sampler = Field(default=Sampler.TPE, description="How the next trial is chosen.")
    trials: int = Field(
        default=DEFAULT_TRIALS,
        ge=1,
        le=MAX_TRIALS,
        description="Trials at most. Left out, a grid runs all of its combinations.",
    )
    pruner: Pruner = Field(default=Pruner.NONE, description="Which trials are ended early.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the choices; the same one repeats them.")
    space: dict[str, Annotated[Any, WithJsonSchema(DIMENSION_SCHEMA)]] = Field(
        min_length=1, max_length=MAX_FIELDS, description="Fields of the spec, with dots, and what each may be."
    )


@dataclass(frozen=True)
class Numbers:
    """A range of numbers, both ends included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    step: float | None = None

    @property
    def num_values(self) -> int | None:
        """How many values it has; None of a range without steps."""
        step = self.step or (1 if self.whole else None)
        return (
            None if step is None else int((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(step))) + 1
        )

    def at(self, index: int) -> float | int:
        """The value after so many steps from the lower end."""
        value = Decimal(str(self.low)) + index * Decimal(str(self.step or 1))
        return int(value) if self.whole else float(value)

    def tidied(self, value: float) -> float | int:
        """A drawn value as it is used: on a step, whole, or of few digits, and within the range."""
        if self.whole or self.step is not None:
            return self.at(round((value - self.low) / (self.step or 1)))
        narrow = max(abs(self.low), abs(self.high)) / (self.high - self.low)  # a range such as 0.98 to 0.99
        digits = DIGITS + max(0, math.floor(math.log10(narrow)))
        return min(max(float(f"{value:.{digits}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choices:
    """Some values, in no order."""

    values: tuple[Any, ...]

    def index_of(self, value: Any) -> int:
        """The place of one of them: 1, 1.0 and true are three values. Raises ValueError for another value."""
        return [text_of(each) for each in self.values].index(text_of(value))


Dimension = Numbers | Choices


class WrongDimension(ValueError):
    """Invalid values of a field: a message, and the nearest valid form."""

    def __init__(self, message: str, nearest: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.nearest = nearest


def text_of(value: Any) -> str:
    """A value as JSON, which tells 1 from true and a list from a tuple no more."""
    return json.dumps(value, sort_keys=True)


def read_space(search: SearchSpec) -> tuple[dict[str, Dimension], list[FieldError]]:
    """The fields that can be read, and an entry for each of the others."""
    space: dict[str, Dimension] = {}
    problems: list[FieldError] = []
    for field, value in search.space.items():
        place = f"search.space.{shorten(field)}"
        try:
            dimension = read_dimension(value)
            if search.sampler is Sampler.GRID:
                _check_grid(dimension)
        except WrongDimension as wrong:
            entry: FieldError = {"field": place, "message": wrong.message}
            problems.append(entry if wrong.nearest is None else {**entry, "nearest": wrong.nearest})
        else:
            space[field] = dimension
    if not problems and search.sampler is Sampler.GRID and "trials" not in search.model_fields_set:
        number = num_combinations(space)
        if number is not None and number > MAX_TRIALS:
            message = f"makes {number:,} combinations, of {MAX_TRIALS} trials that a study holds; set search.trials to "
            problems.append({"field": "search.space", "message": f"{message}run some of them, drawn at random"})
    return space, problems


def space_of(search: SearchSpec) -> dict[str, Dimension]:
    """The space of a search that was checked when it was sent."""
    return {field: read_dimension(value) for field, value in search.space.items()}


def num_combinations(space: Mapping[str, Dimension]) -> int | None:
    """How many trials differ from each other; None where a field has a range without steps."""
    product = 1
    for dimension in space.values():
        number = len(dimension.values) if isinstance(dimension, Choices) else dimension.num_values
        if number is None:
            return None
        product *= number
    return product


def num_trials(search: SearchSpec) -> int:
    """How many trials a search has at most."""
    number = num_combinations(space_of(search))
    if search.sampler is Sampler.GRID and "trials" not in search.model_fields_set and number is not None:
        return min(number, MAX_TRIALS)
    return search.trials if number is None else min(search.trials, number)


def values_of(dimension: Dimension) -> list[Any]:
    """The values of a field with a finite number of them."""
    if isinstance(dimension, Choices):
        return list(dimension.values)
    return [dimension.at(index) for index in range(dimension.num_values or 0)]


def in_words(dimension: Dimension) -> str:
    """The values of a field in words: 0.0001 to 0.1 on a log scale."""
    if isinstance(dimension, Choices):
        return ", ".join(value_text(value) for value in dimension.values)
    kind = " on a log scale" if dimension.log else ""
    if dimension.step is not None:
        kind += f" in steps of {dimension.step:g}"
    whole = ", whole numbers" if dimension.whole else ""
    return f"{dimension.low:g} to {dimension.high:g}{kind}{whole}"


def value_text(value: Any) -> str:
    """One value in words: an object by its name, where it has one."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        value = value["name"]
    if isinstance(value, float):
        return f"{value:g}"
    return shorten(value if isinstance(value, str) else json.dumps(value))


def read_dimension(value: Any) -> Dimension:
    """Parse the values of a field as written. Raises WrongDimension."""
    if isinstance(value, list | tuple):
        return _read_choices(value)
    if not isinstance(value, dict):
        raise WrongDimension(f"must be {FORM}, not {describe(value)}")
    log_of_int = "int" in value and not isinstance(value.get("log"), list | tuple)
    found = [kind for kind in KINDS if kind in value and not (kind == "log" and log_of_int)]
    if len(found) > 1:
        nearest = {"int": value["int"], "log": True} if set(found) == {"int", "log"} else None
        raise WrongDimension(f"has {' and '.join(found)}; it can be one of them", nearest)
    if not found:
        given = next(iter(value), None)
        meant = None if given is None else OTHER_NAMES.get(given.casefold()) or nearest_word(given, KINDS)
        hint = f"; did you mean '{meant}'?" if meant else ""
        raise WrongDimension(f"must be {FORM}{hint}", {meant: value[given]} if meant else None)
    kind = found[0]
    for key in value:
        if key != kind and key not in EXTRAS.get(kind, ()):
            allowed = EXTRAS.get(kind, ())
            hint = f"{kind} takes {' and '.join(allowed)}" if allowed else f"{kind} stands alone"
            raise WrongDimension(f"unknown key '{shorten(str(key))}' beside {kind}; {hint}", {kind: value[kind]})
    if kind == "choice":
        return _read_choices(value[kind])
    return _read_numbers(kind, value)


def _read_choices(values: Any) -> Choices:
    if not isinstance(values, list | tuple):
        raise WrongDimension(f"choice must be a list of values, not {describe(values)}", {"choice": [values]})
    if not 1 <= len(values) <= MAX_VALUES:
        raise WrongDimension(f"must have 1 to {MAX_VALUES} values, not {len(values)}")
    known: dict[str, Any] = {}
    for value in values:
        if text_of(value) in known:
            unique = list({text_of(each): each for each in values}.values())
            raise WrongDimension(f"has {describe(value)} twice; each value is tried for itself", unique)
        known[text_of(value)] = value
    return Choices(tuple(values))


def _read_numbers(kind: str, written: Mapping[str, Any]) -> Numbers:
    ends = written[kind]
    if not isinstance(ends, list | tuple) or len(ends) != 2 or not all(_is_number(end) for end in ends):
        raise WrongDimension(f"{kind} must be two numbers, [low, high], not {shorten(text_of(ends))}")
    low, high = ends
    whole, log = kind == "int", kind == "log" or written.get("log", False)
    if not isinstance(log, bool):
        raise WrongDimension(f"log beside int must be true or false, not {describe(log)}")
    if low >= high:
        rest = {key: each for key, each in written.items() if key != kind}
        turned = {kind: [high, low], **rest} if low > high else None
        message = "one value is not a range: set it in base" if low == high else "the lower end comes first"
        raise WrongDimension(
            f"{kind} must be [low, high] with low below high, not [{low:g}, {high:g}]; {message}", turned
        )
    if log and low <= 0:
        raise WrongDimension(f"must be above 0 to be drawn on a log scale; low is {low:g}")
    if whole and not all(isinstance(end, int) and abs(end) <= LARGEST for end in ends):
        nearest = {**written, kind: [math.ceil(low), math.floor(high)]} if math.ceil(low) < math.floor(high) else None
        raise WrongDimension(f"int must be two whole numbers, not [{low:g}, {high:g}]", nearest)
    step = written.get("step")
    if step is not None:
        _check_step(step, low, high, whole=whole, log=log)
        high = Numbers(low, high, log, whole, step)
        high = high.at((high.num_values or 1) - 1)  # the last step within the range is its end
    return Numbers(low, high, log, whole, step) if whole else Numbers(float(low), float(high), log, whole, step)


def _check_step(step: Any, low: float, high: float, *, whole: bool, log: bool) -> None:
    if log:
        raise WrongDimension("step and log cannot be used together; leave one of them out")
    if not _is_number(step) or step <= 0 or (whole and not isinstance(step, int)):
        raise WrongDimension(f"step must be a {'whole number' if whole else 'number'} above 0, not {describe(step)}")
    if Numbers(low, high, whole=whole, step=step).num_values == 1:
        raise WrongDimension(f"step is {step:g}, more than the range of {high - low:g}: it has one value")
    if (high - low) / step > 10_000:
        raise WrongDimension(f"step is {step:g}, which makes more than 10,000 values; leave it out")


def _check_grid(dimension: Dimension) -> None:
    if isinstance(dimension, Choices):
        return
    if dimension.num_values is None or dimension.log:
        few = [dimension.low, dimension.high]
        raise WrongDimension("the grid sampler needs a list of values, or a range with a step", few)
    if dimension.num_values > MAX_VALUES:
        message = f"has {dimension.num_values:,} values, of {MAX_VALUES} that a grid takes of one field; give a step"
        raise WrongDimension(message)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
