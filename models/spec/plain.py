"""Is a body plain JSON data of a sensible size? Checked first and without recursion, so that nothing after it can trip.

Bodies come from JSON and from YAML, whose aliases can make a short text stand for a structure without end, and whose
values can be dates.
"""

import math
from typing import Any

from models.spec.explain import describe, fail, field_of

MAX_DEPTH = 32
"""A spec needs 6 levels."""
MAX_KEYS = 200
"""No object in a spec has more than some forty. Each one that is not known costs the time of an explanation."""
MAX_VALUES = 20_000
"""A spec with the most layers that it may have needs about 10,000."""
MAX_INTEGER = 2**63


def copy_plain(body: Any) -> Any:
    """The body as dictionaries, lists and single values of its own. Raises SpecError for anything that is not JSON."""
    top: list[Any] = [None]
    waiting: list[tuple[Any, list[int | str], Any, Any]] = [(body, [], top, 0)]
    count = 0
    while waiting:
        value, location, home, key = waiting.pop()
        count += 1
        if count + (len(value) if isinstance(value, dict | list | tuple) else 0) > MAX_VALUES:
            fail("body", f"has more than {MAX_VALUES:,} values; a spec has hundreds")
        if len(location) > MAX_DEPTH:
            fail(field_of(location[:3]), f"is nested more than {MAX_DEPTH} levels deep; a spec has 6")
        if isinstance(value, dict):
            if len(value) > MAX_KEYS:
                fail(field_of(location), f"has {len(value):,} keys; no part of a spec has more than {MAX_KEYS}")
            home[key] = dict.fromkeys(value)
            for name, part in value.items():
                _check_key(name, location)
                waiting.append((part, [*location, name], home[key], name))
        elif isinstance(value, list | tuple):
            home[key] = [None] * len(value)
            waiting.extend((part, [*location, index], home[key], index) for index, part in enumerate(value))
        else:
            _check_single(value, location)
            home[key] = value
    return top[0]


def _check_key(name: Any, location: list[int | str]) -> None:
    if not isinstance(name, str):
        fail(field_of(location), f"has the key {describe(name)}; keys are text")
    if not _is_unicode(name):
        fail(field_of(location), "has a key that is not valid Unicode text")


def _check_single(value: Any, location: list[int | str]) -> None:
    field = field_of(location)
    if isinstance(value, str):
        if not _is_unicode(value):
            fail(field, "is not valid Unicode text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            fail(field, f"must be a finite number, not {value}", value=str(value))
    elif isinstance(value, int):
        if abs(value) >= MAX_INTEGER:
            fail(field, "is a number with more digits than any field can use")
    elif value is not None:
        fail(field, f"is {describe(value)}, which JSON does not know; write it as text, a number, a list or an object")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
