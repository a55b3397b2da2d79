"""Tries out the `nearest` values of an error, and leaves out those that would be refused themselves."""

import contextlib
import copy
from collections.abc import Callable, Collection
from typing import Any

from models.errors import FieldError, SpecError
from models.plain import JsonObject

Refused = Callable[[JsonObject], SpecError | None]


def put(body: Any, field: str, value: Any) -> None:
    """Set one field of a body in place, its place written with dots; parts on the way that are missing are made."""
    *parts, last = field.split(".")
    for part in parts:
        body = body[int(part)] if isinstance(body, list) else body.setdefault(part, {})
    if isinstance(body, list):
        body[int(last)] = value
    else:
        body[last] = value


def take_out(body: Any, field: str) -> None:
    """Remove one key of a body in place."""
    *parts, last = field.split(".")
    for part in parts:
        body = body[int(part)] if isinstance(body, list) else body[part]
    del body[last]


def with_usable_advice(error: SpecError, body: JsonObject, unknown: Collection[str], refused: Refused) -> SpecError:
    """The error with every `nearest` left out that would not do.

    `unknown` are the fields whose `nearest` is the name of another field and not a value; `refused` reads a body again.
    All values are tried at once, like a client that follows all of the advice.
    """
    advised = [entry for entry in error.errors if "nearest" in entry and entry["field"] not in unknown]
    if not advised or any("." in str(key) for key in body):
        return error
    mended = copy.deepcopy(body)
    for entry in error.errors:
        if entry["field"] in unknown:
            _try(take_out, mended, entry["field"])
    for entry in advised:
        _try(put, mended, entry["field"], entry["nearest"])
    again = refused(mended)
    if again is None:
        return error
    useless = set()
    for other in again.errors:
        named = [entry for entry in advised if entry["field"] == other["field"]]
        words = other["message"].replace(",", " ").split()
        named = named or [entry for entry in advised if entry["field"].rpartition(".")[2] in words]
        useless |= {entry["field"] for entry in named}
    known = {entry["field"] for entry in error.errors}
    if not useless and any(other["field"] not in known for other in again.errors):
        useless = {entry["field"] for entry in advised}
    entries = [without_nearest(entry) if entry["field"] in useless else entry for entry in error.errors]
    return SpecError(entries, fix=error.fix)


def without_nearest(entry: FieldError) -> FieldError:
    """A copy of an entry without its nearest value."""
    copied = entry.copy()
    copied.pop("nearest", None)
    return copied


def _try(change: Callable[..., None], body: JsonObject, field: str, *value: Any) -> None:
    # a key with a dot in it, or one that was shortened for the message, is not found again
    with contextlib.suppress(KeyError, IndexError, ValueError, TypeError, AttributeError):
        change(body, field, *value)
