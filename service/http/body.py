"""Parsing JSON and YAML request bodies: bounded in size and depth, plain data only, nothing silently dropped.

JSON's own loader takes NaN, repeated keys and half surrogate pairs; YAML's takes aliases that unfold to gigabytes and
reads `no` as false and `1e-3` as text. Here the result is what was written, or an error that names the place.
"""

import json
import math
import re
from collections.abc import Iterable
from email.message import Message
from typing import Any, NoReturn

import yaml
from anyio import to_thread
from starlette.requests import Request

from models.errors import InvalidRequest, UnsupportedMedia
from models.plain import Place, is_unicode, path_of, walk

MAX_BODY_BYTES = 1_000_000
MAX_YAML_BYTES = 200_000  # an order of magnitude slower to parse, and hand-written files are small
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""The largest valid spec needs half of it."""
MAX_YAML_VALUES = 10_000
INLINE_BYTES = 4096
"""Bodies up to this size are parsed on the event loop, longer ones in a thread."""
MAX_INTEGER = 2**63 - 1
MAX_DIGITS = 100
SHOWN = 60
"""Characters of a key quoted in a message."""

YAML_TYPES = {"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"}
FIX = "GET /api/v1/schema describes a spec; docs/http.md shows examples"

TEXTS = {"name"}
LISTS_OF_TEXTS = {"tags"}
"""Top-level fields of a spec that are text even where YAML would read a number."""
LABELS = {"key", "title", "question", "baseline", "rows", "learning_rate_test"}
"""Fields of a study and its parts that are text, or lists of text, in the same way: `key: 0.010`, `title: 2024`."""
TEXT, NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"


async def read_document(request: Request) -> tuple[Any, bytes]:
    """Read the body as plain data, and as bytes (for the digest of an Idempotency-Key). Raises InvalidRequest,
    UnsupportedMedia.
    """
    parse, limit = _parser_for(request.headers.get("content-type"))
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            _refuse("body", f"is longer than the maximum of {limit:,} bytes")
    if len(data) <= INLINE_BYTES:
        return parse(bytes(data)), bytes(data)
    return await to_thread.run_sync(parse, bytes(data)), bytes(data)


def _parser_for(content_type: str | None) -> tuple[Any, int]:
    header = Message()
    header["content-type"] = content_type or ""
    kind = header.get_content_type() if content_type else ""
    if kind == "application/json" or kind.endswith("+json"):
        return parse_json, MAX_BODY_BYTES
    if kind in YAML_TYPES or kind.endswith("+yaml"):
        return parse_yaml, MAX_YAML_BYTES
    raise UnsupportedMedia(
        f"the Content-Type is '{kind}', and a spec must be JSON or YAML" if kind else "there is no Content-Type",
        fix="send Content-Type: application/json or application/yaml",
    )


def parse_json(data: bytes) -> Any:
    """Parse strict JSON: UTF-8, finite numbers, no repeated keys, bounded depth. Raises InvalidRequest."""
    if data.count(b",") > MAX_VALUES:  # counted before any work is done
        _refuse("body", f"holds more than {MAX_VALUES:,} values")
    try:
        document = json.loads(
            _decode(data),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        _refuse("body", f"is nested deeper than {MAX_DEPTH} levels")
    except json.JSONDecodeError as error:
        _refuse("body", f"is not valid JSON: {error}")
    _check_values(document)
    return document


def parse_json_parameter(name: str, text: str) -> Any:
    """As `parse_json`, for a query parameter, whose name stands in errors in place of the body's."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except InvalidRequest as error:
        (entry,) = error.extra["errors"]
        field = name if entry["field"] == "body" else f"{name}.{entry['field']}"
        _refuse(field, entry["message"])


def parse_yaml(data: bytes) -> Any:
    """Parse one YAML document without anchors, aliases, tags or repeated keys; scalars as in YAML 1.2.

    Raises InvalidRequest.
    """
    if data.count(b",") + data.count(b"\n") > MAX_YAML_VALUES:
        _refuse("body", f"holds more than {MAX_YAML_VALUES:,} lines or values; JSON may hold {MAX_VALUES:,}")
    text = _decode(data)
    try:
        _check_events(text)
        document = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        words = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
        _refuse("body", f"is not valid YAML: {words[:300]}")
    except RecursionError:
        _refuse("body", f"is nested deeper than {MAX_DEPTH} levels")
    _check_values(document)
    return document


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse("body", f"is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        _refuse(_shorten(str(_repeated(key for key, _ in pairs))), "is given twice; leave one out")
    return document


def _repeated(keys: Iterable[str]) -> str | None:
    """Return the first repeated key, or None."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _refuse_constant(word: str) -> NoReturn:
    _refuse("body", f"holds {word}, which is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse("body", f"holds {text[:40]}, which is beyond the range of a float")
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        _refuse("body", f"holds an integer of {len(text):,} digits")
    return int(text)


class _PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML loader that resolves null, booleans, decimal integers and floats by YAML 1.2; all else is text.

    A spec's name and tags are text as it was written: `name: 2024`, `tags: [1, 2.50, true]`.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}

    def get_single_data(self) -> Any:
        if (node := self.get_single_node()) is None:
            return None
        if isinstance(node, yaml.MappingNode):
            node.value = [(key, _as_text(key, value)) for key, value in node.value]
        return self.construct_document(node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return _integer(str(node.value))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if (repeated := _repeated(keys)) is not None:
            _refuse(_shorten(repeated), "is given twice; leave one out")
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in LABELS:
                _keep_text(value)
        return dict(super().construct_mapping(node, deep=deep))


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", list("-+0123456789.")),
    ("float", r"^[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)$", list("-+.")),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _keep_text(value: yaml.Node) -> None:
    """Have a label, or each of a list of them, read as it was written, whatever it looks like; null stays null."""
    for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
        if isinstance(one, yaml.ScalarNode) and one.tag != NULL:
            one.tag = TEXT


def _as_text(field: yaml.Node, value: yaml.Node) -> yaml.Node:
    """Return the value of a spec's name or tags as text, instead of the type that YAML resolves it to.

    `null` and an empty value leave the field empty; in a list `null` is the text "null".
    """
    key = field.value if isinstance(field, yaml.ScalarNode) else None
    empty = value.tag == NULL
    if key in TEXTS and isinstance(value, yaml.ScalarNode):
        return yaml.ScalarNode(TEXT, "" if empty else value.value)
    if key in LISTS_OF_TEXTS and empty:
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [])
    if key in LISTS_OF_TEXTS and isinstance(value, yaml.SequenceNode):
        for item in value.value:
            if isinstance(item, yaml.ScalarNode) and item.value:
                item.tag = TEXT
    return value


def _check_events(text: str) -> None:
    """Check the YAML event stream, before anything is built, for what can hide size or meaning (aliases, tags)."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_PlainLoader)):
        where = f"line {event.start_mark.line + 1}" if event.start_mark else "the body"
        if count > 2 * MAX_YAML_VALUES:
            _refuse("body", f"holds more than {MAX_YAML_VALUES:,} values")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            _refuse("body", f"{where} has an anchor or alias, which are not accepted; write the values out")
        if tag := getattr(event, "tag", None):
            _refuse("body", f"{where} has the tag {tag[:60]}, and tags are not accepted")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            _refuse("body", f"{where} is nested deeper than {MAX_DEPTH} levels")
        if documents > 1:
            _refuse("body", f"{where} starts a second document; send one")


def _check_values(document: Any) -> None:
    """Check parsed data: depth, number of values, plain types, encodable text, numbers of at most 64 bits."""
    for count, (value, place, depth) in enumerate(walk(document), start=1):
        if count + (len(value) if isinstance(value, dict | list) else 0) > MAX_VALUES:
            _refuse("body", f"holds more than {MAX_VALUES:,} values")
        if depth >= MAX_DEPTH:
            _refuse(_written(place).split(".")[0], f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    _refuse(_written(place), f"has the key {str(key)[:60]}, which is not text")
                _check_text(key, place)
        elif not isinstance(value, list):
            _check_scalar(value, place)


def _written(place: Place) -> str:
    """Format a place for messages: model.blocks.0.convs."""
    return ".".join(_shorten(str(key)) for key in path_of(place)) or "body"


def _check_scalar(value: Any, place: Place) -> None:
    if isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            _refuse(_written(place), "is an integer beyond 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            _refuse(_written(place), f"is {value}, and numbers must be finite")
    else:
        kind = type(value).__name__
        _refuse(_written(place), f"is a {kind}, not text, a number, true, false or null; put it in quotes")


def _check_text(text: str, place: Place) -> None:
    if "\0" in text:  # PostgreSQL keeps none
        _refuse(_written(place).replace("\0", "?"), "holds a NUL character, which is not text")
    if not is_unicode(text):
        where = _written(place).encode("ascii", "replace").decode()
        _refuse(where, "holds half of a surrogate pair, which is not text")


def _refuse(field: str, message: str) -> NoReturn:
    raise InvalidRequest(f"{field}: {message}", fix=FIX, errors=[{"field": field, "message": message}])
