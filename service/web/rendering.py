"""Rendering of HTML templates, with the filters that format figures."""

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from models import text
from models.plain import JsonObject
from models.spec.search import value_text
from models.text import plural
from service.http.headers import PAGE_POLICY
from service.http.prefix import prefix, with_prefix

FOLDER = Path(__file__).parent
KEPT_SPECS, KEPT_LENGTH = 64, 50_000
"""Specs that are kept as YAML, and the characters of the longest that is, as JSON."""
STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def render(template: str, *, status_code: int = 200, **context: Any) -> HTMLResponse:
    """Render a page, with all values escaped and a content security policy for the lab's own assets."""
    text = _environment().get_template(template).render(static=_static, root=prefix(), **context)
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(text, status_code=status_code, headers=headers)


def render_problem(problem: JsonObject) -> HTMLResponse:
    """Render a problem document as a page, with its status."""
    return render("problem.html", status_code=problem["status"], caller=None, problem=problem)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        value_text=value_text,
        figure=figure,
        ago=ago,
        clock=clock,
        duration=duration,
        count=count,
        plural=plural,
        yaml=as_yaml,
        pretty=pretty,
    )
    return environment


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that pages load."""

    data: bytes
    media_type: str
    digest: str
    """Of its contents, short."""


@lru_cache(maxsize=1)
def static_files() -> dict[str, StaticFile]:
    """Read the style, script and icon, once, by name."""
    return {
        path.name: StaticFile(data, STATIC_TYPES[path.suffix], hashlib.sha256(data).hexdigest()[:10])
        for path in (FOLDER / "static").iterdir()
        if (data := path.read_bytes())
    }


def _static(name: str) -> str:
    """Return a static file's address, which contains its digest."""
    return with_prefix(f"/static/{name}?v={static_files()[name].digest}")


def percent(value: float | None) -> str:
    """Format a fraction in per cent."""
    return "\u2013" if value is None or not math.isfinite(value) else f"{100 * value:.2f}\u202f%"


def figure(value: float | None) -> str:
    """Format a number of any size briefly."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def count(value: int | None) -> str:
    """Format a count with thousands separators."""
    return "\u2013" if value is None else f"{value:,}".replace(",", "\u202f")


def ago(moment: datetime | None) -> str:
    """Format how long ago a moment was, or its date if that is long."""
    if moment is None:
        return "\u2013"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return text.ago(seconds) if seconds < 60 * text.DAY else moment.strftime("%d %b %Y")


def clock(moment: datetime | None) -> str:
    """Format a moment in UTC."""
    return "\u2013" if moment is None else moment.astimezone(UTC).strftime("%d %b %Y, %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """Format a duration."""
    return "\u2013" if seconds is None or not math.isfinite(seconds) else text.duration(seconds)


def as_yaml(document: Any) -> str:
    """Format plain data as YAML that can be POSTed."""
    text = json.dumps(document)
    return _known_yaml(text) if len(text) <= KEPT_LENGTH else _as_yaml(text)


@lru_cache(KEPT_SPECS)
def _known_yaml(text: str) -> str:
    """A page with a spec is read again while that runs, and YAML takes longer than the rest of it."""
    return _as_yaml(text)


def _as_yaml(text: str) -> str:
    return yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True, width=100)


def pretty(document: Any) -> str:
    """Format plain data as indented JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False)
