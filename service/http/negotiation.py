"""Content negotiation by Accept and Accept-Encoding (RFC 9110, sections 12.5.1 and 12.5.3)."""

from collections.abc import Sequence


def choose_type(accept: str | None, offered: Sequence[str]) -> str | None:
    """Return the offered media type with the highest quality in an Accept header, the first of equals; None if none."""
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_read_range(part) for part in accept.split(",")[:50]]
    best, best_quality = None, 0.0
    for media_type in offered:
        quality = _quality(media_type, ranges)
        if quality > best_quality:
            best, best_quality = media_type, quality
    return best


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether an Accept-Encoding header allows gzip and does not prefer identity."""
    if not accept_encoding:
        return False
    codings = dict(reversed([_read_range(part) for part in accept_encoding.split(",")[:50]]))
    gzip = max((codings[name] for name in ("gzip", "x-gzip") if name in codings), default=codings.get("*", 0.0))
    return gzip > 0 and gzip >= codings.get("identity", 0.0)


def _read_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return name, 0.0
    return name, 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that matches a media type."""
    for wanted in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        found = [quality for name, quality in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0
