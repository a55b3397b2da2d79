"""Checks that a body is plain JSON data of limited size and depth, before any other code reads it.

Bodies come from JSON and from YAML, whose aliases can expand a short text into an endless structure, and whose values
can be dates.
"""

import math
from typing import Any, NoReturn

from models.plain import Place, copy_with, is_unicode, path_of, walk
from models.spec.explain import describe, fail, field_of

MAX_DEPTH = 32
"""A spec needs 6 levels."""
MAX_KEYS = 200
"""No object in a spec has more than some forty. Each one that is not known costs the time of an explanation."""
MAX_VALUES = 20_000
"""A spec with the most layers that it may have needs about 10,000."""
MAX_INTEGER = 2**63


def copy_plain(body: Any) -> Any:
    """A copy of the body as dictionaries, lists and single values. Raises SpecError for anything that is not JSON."""
    for count, (value, place, depth) in enumerate(walk(body), start=1):
        if count + (len(value) if isinstance(value, dict | list | tuple) else 0) > MAX_VALUES:
            fail("body", f"has more than {MAX_VALUES:,} values; a spec has hundreds")
        if depth > MAX_DEPTH:
            fail(field_of(path_of(place)[:3]), f"is nested more than {MAX_DEPTH} levels deep; a spec has 6")
        if isinstance(value, dict):
            _check_keys(value, place)
        elif not isinstance(value, list | tuple):
            _check_single(value, place)
    return copy_with(body, lambda value: value)


def _check_keys(value: dict[Any, Any], place: Place) -> None:
    if len(value) > MAX_KEYS:
        _fail(place, f"has {len(value):,} keys; no part of a spec has more than {MAX_KEYS}")
    for name in value:
        if not isinstance(name, str):
            _fail(place, f"has the key {describe(name)}; keys are text")
        if not is_unicode(name):
            _fail(place, "has a key that is not valid Unicode text")


def _check_single(value: Any, place: Place) -> None:
    if isinstance(value, str):
        if not is_unicode(value):
            _fail(place, "is not valid Unicode text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            _fail(place, f"must be a finite number, not {value}", value=str(value))
    elif isinstance(value, int):
        if abs(value) >= MAX_INTEGER:
            _fail(place, "is a number with more digits than any field can use")
    elif value is not None:
        _fail(place, f"is {describe(value)}, which JSON does not know; write it as text, a number, a list or an object")


def _fail(place: Place, message: str, **more: Any) -> NoReturn:
    fail(field_of(path_of(place)), message, **more)
