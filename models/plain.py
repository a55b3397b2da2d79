"""Helpers for plain data (nested dictionaries and lists of JSON values): visiting every value, copying with changes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

JsonObject = dict[str, Any]
"""A JSON object without a fixed form: a spec as it was sent, an OpenAPI schema, options that depend on a kind."""

Place = tuple["Place", int | str] | None
"""The place of a value: its parent's place and its key there; None for the outermost value."""


def walk(data: Any) -> Iterator[tuple[Any, Place, int]]:
    """Visit every value of plain data, each container before what is in it: (value, place, depth).

    Depth counts from 0. It does not recurse, so data may be nested without limit, and a container is opened only after
    its visit, so a caller may stop at one that is too large.
    """
    waiting: list[tuple[Any, Place, int]] = [(data, None, 0)]
    while waiting:
        value, place, depth = waiting.pop()
        yield value, place, depth
        if isinstance(value, dict):
            waiting.extend((part, (place, key), depth + 1) for key, part in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((part, (place, index), depth + 1) for index, part in enumerate(value))


def path_of(place: Place) -> list[int | str]:
    """The keys that lead to a place from the outermost value."""
    keys: list[int | str] = []
    while place is not None:
        place, key = place
        keys.append(key)
    return keys[::-1]


def copy_with(data: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of plain data in which every single value is what `change` makes of it. Tuples become lists."""
    if isinstance(data, dict):
        return {key: copy_with(part, change) for key, part in data.items()}
    if isinstance(data, list | tuple):
        return [copy_with(part, change) for part in data]
    return change(data)


def finite(data: Any) -> Any:
    """A copy of plain data in which every float that is not finite is None, since JSON has no such numbers."""
    return copy_with(data, lambda value: None if isinstance(value, float) and not math.isfinite(value) else value)


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
