"""From what was typed to the body of a POST: a YAML or JSON file, standard input or a preset's name, and --set."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from service.cli.client import Client

SPEC_SUFFIXES = {".yaml", ".yml", ".json"}


def read_body(source: str, changes: list[str], client: "Client") -> dict[str, Any]:
    """The spec as an object. A wrong file is a usage error; whether the spec makes sense is the lab's to say."""
    if source == "-":
        body = parse_text(sys.stdin.buffer.read(), "")
    elif Path(source).is_file():
        body = parse_text(Path(source).read_bytes(), Path(source).suffix)
    elif Path(source).suffix in SPEC_SUFFIXES:
        raise typer.BadParameter(f"there is no file {source}", param_hint="SPEC")
    else:
        presets = client.get("/presets")
        body = {"preset": source} if source in presets.get("experiments", {}) else {"model": source}
    for change in changes:
        apply_change(body, change)
    return body


def parse_text(text: bytes, suffix: str) -> dict[str, Any]:
    """A YAML or JSON object, read by the very rules by which the lab reads it."""
    from service.body import parse_json, parse_yaml

    found = parse_json(text) if suffix == ".json" else parse_yaml(text)
    if not isinstance(found, dict):
        raise typer.BadParameter("it holds no spec: a spec is an object with keys", param_hint="SPEC")
    return found


def apply_change(body: dict[str, Any], change: str) -> None:
    """Put `optimizer.lr=0.1` into the body; the value is read as JSON where it is JSON, else as a word."""
    path, separator, text = change.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise typer.BadParameter(f"{change!r} is not KEY=VALUE, as in optimizer.lr=0.1", param_hint="--set")
    place = body
    for key in keys[:-1]:
        inner = place.get(key)
        if isinstance(inner, str):  # the short form of {"name": ...}
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            inner = {}
        place[key] = inner
        place = inner
    try:
        place[keys[-1]] = json.loads(text)
    except ValueError:
        place[keys[-1]] = text
