"""Building the body of a POST from arguments: a YAML or JSON file, standard input or a preset's name, and --set."""

import json
import os
import re
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from models.errors import InvalidRequest
from service.cli.visible import visible

if TYPE_CHECKING:
    from service.cli.client import Client

SPEC_SUFFIXES = {".yaml", ".yml", ".json"}
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")
"""Names of presets and networks: lab-report/6e, resnet18, timm/resnet26d."""


class UnreadableFile(InvalidRequest):
    """A file of a spec or a study that is not valid YAML or JSON."""

    title = "The file cannot be read"


def read_body(source: str, changes: list[str], client: "Client") -> dict[str, Any]:
    """Read the spec as an object. An unreadable file is a usage error; the lab validates the spec."""
    body = read_file(source)
    if body is None:
        presets = client.get("/presets")
        body = {"preset": source} if source in presets["experiments"] else {"model": source}
    for change in changes:
        apply_change(body, change)
    return body


def read_file(source: str, noun: str = "spec") -> dict[str, Any] | None:
    """The object in a file or, for `-`, in standard input; None for what can only be a name.

    Raises BadParameter for a file that is not there and for content of another kind, UnreadableFile for wrong syntax.
    """
    hint = noun.upper()
    if source != "-" and not _is_file(source, hint):
        if Path(source).suffix in SPEC_SUFFIXES:
            raise typer.BadParameter(f"there is no file {visible(source)}", param_hint=hint)
        return None
    if source == "-":
        text, suffix, place = _read_all(sys.stdin.buffer, noun), "", "standard input"
    else:
        with Path(source).open("rb") as file:
            text, suffix, place = _read_all(file, noun), Path(source).suffix, visible(source)
    try:
        return parse_text(text, suffix, noun)
    except InvalidRequest as error:
        fix = f"Write the {noun} as YAML or JSON; docs/http.md shows examples."
        raise UnreadableFile(f"{place}: {error.detail.removeprefix('body: ')}", fix=fix) from None


def _is_file(source: str, hint: str) -> bool:
    """Whether a path is to be read as a file; a folder that has a preset's or a network's name does not hide it.

    Raises BadParameter for a folder that no name can mean.
    """
    if not os.path.isdir(source):
        return os.path.exists(source)
    if not NAME.fullmatch(source):
        raise typer.BadParameter(f"{visible(source)} is a folder", param_hint=hint)
    return False


def _read_all(file: BinaryIO, noun: str) -> bytes:
    """Read a file up to the lab's size limit, since it may be an endless device."""
    from service.http.body import MAX_BODY_BYTES

    text = file.read(MAX_BODY_BYTES + 1)
    if len(text) > MAX_BODY_BYTES:
        message = f"it is longer than the {MAX_BODY_BYTES:,} bytes of a {noun}"
        raise typer.BadParameter(message, param_hint=noun.upper())
    return text


def parse_text(text: bytes, suffix: str, noun: str = "spec") -> dict[str, Any]:
    """Parse an object in JSON or YAML, with the lab's own parser.

    What is JSON is read as JSON whatever the file is called: JSON writes some text (half pairs, as Python's json does
    for emoji) in a way that YAML does not know.
    """
    from service.http.body import parse_json, parse_yaml

    found = parse_json(text) if suffix == ".json" or _is_json(text) else parse_yaml(text)
    if not isinstance(found, dict):
        what = "is empty" if found is None else f"is no {noun}"
        raise typer.BadParameter(f"it {what}: a {noun} is an object with keys", param_hint=noun.upper())
    return found


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return True


def apply_change(body: dict[str, Any], change: str) -> None:
    """Apply a change such as `optimizer.lr=0.1` to the body; a number in the path is a list index."""
    path, separator, text = change.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise typer.BadParameter(f"{visible(change)!r} is not KEY=VALUE, as in optimizer.lr=0.1", param_hint="--set")
    place: Any = body
    for key in keys[:-1]:
        inner = place[_index(place, key, path)] if isinstance(place, list) else place.get(key)
        if isinstance(inner, str):  # the short form of {"name": ...}
            inner = {"name": inner}
        elif not isinstance(inner, dict | list):
            inner = {}
        place[_index(place, key, path) if isinstance(place, list) else key] = inner
        place = inner
    value = read_value(path.strip(), text)
    place[_index(place, keys[-1], path) if isinstance(place, list) else keys[-1]] = value


def read_value(path: str, text: str) -> Any:
    """Parse a value as YAML: .05 and 1e-3 are numbers, True is true, [a, b] a list, the rest is text.

    A name and a tag are text whatever they look like: `name=2024`, `name=no: 1`, `tags.0=7`.
    """
    from service.http.body import LISTS_OF_TEXTS, TEXTS, parse_yaml

    text = text.strip()
    if text.startswith("#"):  # no comment where there is nothing else
        return text
    field, _, place = path.partition(".")
    try:
        found = parse_yaml(os.fsencode(text))
        if path in TEXTS | LISTS_OF_TEXTS and not isinstance(found, str | dict):
            found = parse_yaml(os.fsencode(f"{path}:\n{indent(text, ' ')}"))[path]
    except InvalidRequest as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise typer.BadParameter(
                f"{visible(text)!r} cannot be read: {visible(error.detail)}", param_hint="--set"
            ) from None
        return text
    is_text = path in TEXTS or (field in LISTS_OF_TEXTS and place)
    return text if is_text and not isinstance(found, str) else found


def _index(place: list[Any], key: str, path: str) -> int:
    if not (key.isascii() and key.isdigit() and int(key) < len(place)):
        raise typer.BadParameter(
            f"{visible(path)}: {visible(key)!r} is not an index in a list of {len(place)}", param_hint="--set"
        )
    return int(key)
