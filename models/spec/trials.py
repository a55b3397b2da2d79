"""The trials of a search as specs, and its space checked against the base spec before anything is queued."""

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import FieldError, SpecError
from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec
from models.spec.explain import describe, shorten
from models.spec.overrides import overlap, spec_with
from models.spec.search import Choices, Dimension, Numbers, read_space, value_text
from models.spec.study import StudySpec

MOST_COMBINATIONS = 60
"""Combinations of ends and values that are tried when a search is sent; the others when a trial is drawn."""
MOST_NETWORKS = 20
"""Networks of a search that are built when it is sent."""
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (f"dataset.{name}" for name in ("name", "fingerprint", "val_fraction", "split", "split_seed", "val_limit")),
        "decides which images a trial is validated on; trials are compared on the same images, so set it in base",
    ),
    "dataset": "is the images that trials are compared on; name a field of it that is not, as dataset.train_limit",
    "seed": "cannot be searched: the best of several seeds is luck; compare seeds by a study with seeds: 3",
    "name": "does not change how a spec is trained",
    "tags": "does not change how a spec is trained",
    "spec_version": "is what the spec's fields mean; set it in base",
    "model.init_from": "cannot be in a spec of a study, whose experiments a worker creates",
    "preset": "is a whole spec; name a field of it, or write the presets as variants",
}


@dataclass(frozen=True)
class SpacePoint:
    """A point of a search's space that was tried out when it was sent."""

    params: Mapping[str, Any]
    spec: ExperimentSpec


def check_space(study: StudySpec) -> tuple[list[SpacePoint], list[FieldError]]:
    """Points of the space, each with its spec, and an entry for everything that is wrong with it."""
    assert study.search is not None
    space, problems = read_space(study.search)
    problems += _refused_fields(study.search.space)
    if problems:
        return [], problems
    first = {field: values_to_try(dimension)[0] for field, dimension in space.items()}
    points: list[SpacePoint] = []
    usual: Mapping[str, Any] = {}
    try:
        trial_spec(study, usual)
    except SpecError:  # a base that is complete only with a value of the space, such as a network
        usual = first
    try:
        points.append(SpacePoint(usual, trial_spec(study, usual)))
    except SpecError as error:
        return [], [located(entry, first) for entry in error.errors]
    for field, dimension in space.items():
        problems += _wrong_values(study, field, dimension, usual, points)
    if not problems:
        problems += _wrong_combinations(study, space, points)
    return points, problems


def trial_spec(study: StudySpec, params: Mapping[str, Any], fingerprint: str | None = None) -> ExperimentSpec:
    """The spec of a trial. Raises SpecError. `fingerprint` pins the version of an uploaded dataset."""
    pinned = {} if fingerprint is None else {"dataset.fingerprint": fingerprint}
    return spec_with(study, {**params, **pinned}, title_of(params))


def title_of(params: Mapping[str, Any]) -> str:
    """A trial in words: lr 0.0123, batch_size 64."""
    lasts = [field.rpartition(".")[2] for field in params]
    return ", ".join(
        f"{last if lasts.count(last) == 1 else field} {value_text(value)}"
        for last, (field, value) in zip(lasts, params.items(), strict=True)
    )


def located(entry: FieldError, fields: Iterable[str]) -> FieldError:
    """A problem of a trial's spec as one of the space where a field of the space decides it, else of the base."""
    name = str(entry["field"])
    found = next((field for field in fields if overlap(name, field)), None)
    return {**entry, "field": f"base.{name}"} if found is None else _of_field(entry, found)


def networks_of(points: Iterable[SpacePoint]) -> list[SpacePoint]:
    """The points that differ in their network, the first ones of many."""
    found: dict[str, SpacePoint] = {}
    for point in points:
        found.setdefault(network_key(point.spec), point)
    return list(found.values())[:MOST_NETWORKS]


def network_key(spec: ExperimentSpec) -> str:
    """A key that is equal for specs that train the same network."""
    return json.dumps(spec.as_json()["model"], sort_keys=True)


def values_to_try(dimension: Dimension) -> list[Any]:
    """The values of a field that are tried out when the search is sent: both ends of a range, or all of a choice."""
    if isinstance(dimension, Choices):
        return list(dimension.values)
    return [int(end) if dimension.whole else end for end in (dimension.low, dimension.high)]


def _refused_fields(space: Mapping[str, Any]) -> Iterator[FieldError]:
    for field in space:
        if field in REFUSED:
            yield {"field": f"search.space.{shorten(field)}", "message": REFUSED[field]}
    for one, other in itertools.combinations(space, 2):
        if overlap(one, other):
            longer = max(one, other, key=len)
            message = (
                f"is a part of {shorten(min(one, other, key=len))}, which is in the space too; leave one of them out"
            )
            yield {"field": f"search.space.{shorten(longer)}", "message": message}


def _wrong_values(
    study: StudySpec, field: str, dimension: Dimension, usual: Mapping[str, Any], points: list[SpacePoint]
) -> Iterator[FieldError]:
    """Try each value of one field beside usual values of the others; the first problem of each kind."""
    known: set[str] = set()
    for value in values_to_try(dimension):
        params = {**usual, field: value}
        try:
            points.append(SpacePoint(params, trial_spec(study, params)))
        except SpecError as error:
            for entry in error.errors:
                problem = _of_value(entry, field, dimension, value)
                if problem["message"] not in known:
                    known.add(problem["message"])
                    yield problem


def _of_value(entry: FieldError, field: str, dimension: Dimension, value: Any) -> FieldError:
    """What is wrong with a value of a field, with the nearest form of the whole field where there is one."""
    problem = _of_field(entry, field)
    nearest = problem.pop("nearest", None)
    if overlap(str(entry["field"]), field) and nearest is not None and not _names_a_field(entry):
        if (mended := _mended(dimension, value, nearest)) is not None:
            problem["nearest"] = mended
    elif nearest is not None:
        problem["nearest"] = nearest
    if isinstance(dimension, Numbers) and not dimension.whole and "whole number" in entry["message"]:
        problem["message"] = f"takes whole numbers; write {{int: [low, high]}}, not {describe(value)}"
        low, high = math.ceil(dimension.low), math.floor(dimension.high)
        problem["nearest"] = {"int": [low, high], **({"log": True} if dimension.log else {})}
    return problem


def _names_a_field(entry: FieldError) -> bool:
    """Whether an entry's `nearest` is the name of another field and no value."""
    return "unknown key" in entry["message"] or "; it has " in entry["message"] or "did you mean" in entry["message"]


def _mended(dimension: Dimension, value: Any, nearest: Any) -> Any:
    if isinstance(dimension, Choices):
        values = [nearest if each is value else each for each in dimension.values]
        return values if len({json.dumps(each) for each in values}) == len(values) else None
    if not isinstance(nearest, int | float):
        return None
    low, high = (nearest if end == value else end for end in (dimension.low, dimension.high))
    if low >= high or (dimension.log and low <= 0):
        return None
    kind = "int" if dimension.whole else "log" if dimension.log else "uniform"
    extra = {"log": True} if dimension.whole and dimension.log else {}
    return {kind: [low, high], **extra, **({"step": dimension.step} if dimension.step else {})}


def _of_field(entry: FieldError, field: str) -> FieldError:
    name = str(entry["field"])
    message = entry["message"] if name == field else f"{name}: {entry['message']}"
    problem: FieldError = {**entry, "field": f"search.space.{shorten(field)}", "message": message}
    return problem


def _wrong_combinations(
    study: StudySpec, space: Mapping[str, Dimension], points: list[SpacePoint]
) -> Iterator[FieldError]:
    """Try combinations of the ends and values of all fields: all of few, else some that are drawn at random."""
    values = [values_to_try(dimension) for dimension in space.values()]
    known: set[tuple[str, str]] = set()
    for combination in _combinations(values):
        params: JsonObject = dict(zip(space, combination, strict=True))
        try:
            points.append(SpacePoint(params, trial_spec(study, params)))
        except SpecError as error:
            for entry in error.errors:
                problem = located(entry, space)
                with_words = f"{problem['message']} (with {title_of(params)})"
                if (problem["field"], problem["message"]) not in known:
                    known.add((str(problem["field"]), problem["message"]))
                    problem.pop("nearest", None)
                    yield {**problem, "message": with_words}


def _combinations(values: list[list[Any]]) -> Iterable[tuple[Any, ...]]:
    if math.prod(map(len, values)) <= MOST_COMBINATIONS:
        return itertools.product(*values)
    drawn = random.Random(0)
    return [tuple(drawn.choice(each) for each in values) for _ in range(MOST_COMBINATIONS)]
