"""HTML out of templates: what every page shares, and how figures read in it."""

import hashlib
import json
import math
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from service.headers import PAGE_POLICY

FOLDER = Path(__file__).parent
MINUTE, HOUR, DAY = 60, 3600, 86_400


def render(template: str, *, status_code: int = 200, **context: Any) -> HTMLResponse:
    """A page. Everything in it is escaped; it may load this lab's own script and style and nothing else."""
    text = _environment().get_template(template).render(static=static_url, **context)
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(text, status_code=status_code, headers=headers)


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
        figure=figure,
        ago=ago,
        clock=clock,
        duration=duration,
        count=count,
        yaml=as_yaml,
        pretty=pretty,
    )
    return environment


@lru_cache(maxsize=16)
def static_url(name: str) -> str:
    """A static file's address, which changes with its contents."""
    digest = hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:10]}"


def percent(value: float | None) -> str:
    """A fraction in per cent."""
    return "\u2013" if value is None or not math.isfinite(value) else f"{100 * value:.2f}\u202f%"


def figure(value: float | None) -> str:
    """A number of any size, short."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def count(value: int | None) -> str:
    """A count with its thousands apart."""
    return "\u2013" if value is None else f"{value:,}".replace(",", "\u202f")


def ago(moment: datetime | None) -> str:
    """How long ago something was."""
    if moment is None:
        return "\u2013"
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    if seconds < 45:
        return "just now"
    for limit, unit, word in ((HOUR, MINUTE, "min"), (DAY, HOUR, "h"), (60 * DAY, DAY, "d")):
        if seconds < limit:
            return f"{max(1, round(seconds / unit))} {word} ago"
    return moment.strftime("%d %b %Y")


def clock(moment: datetime | None) -> str:
    """A moment in full, in UTC."""
    return "\u2013" if moment is None else moment.astimezone(UTC).strftime("%d %b %Y, %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """A span of time in the two largest units that it has."""
    if seconds is None or not math.isfinite(seconds):
        return "\u2013"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min {seconds % MINUTE:.0f} s"
    return f"{seconds // HOUR:.0f} h {seconds % HOUR // MINUTE:.0f} min"


def as_yaml(document: Any) -> str:
    """Plain data as YAML, good for POSTing again."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def pretty(document: Any) -> str:
    """Plain data as indented JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False)
