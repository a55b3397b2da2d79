"""Formatting of numbers, counts and durations for messages; the pages' script (epochal.js) has the same `duration`."""

import math

MINUTE, HOUR, DAY = 60, 3600, 86_400
JUST_NOW_SECONDS = 45


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """1 epoch, 2 epochs, 10,000 epochs; `nouns` is the plural where it is not the noun with an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or noun + 's'}"


def as_sentence(text: str) -> str:
    """A text with a capital at its start and a full stop at its end."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def number(value: float) -> str:
    """A loss or rate: three significant figures or so, a power of ten where there would be many zeros."""
    if not math.isfinite(value):
        return "a value that is not finite"
    if value != 0 and (abs(value) < 0.001 or abs(value) >= 1e5):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def percent(value: float) -> str:
    """Format a fraction as a percentage: 69.5%; ten and more as a multiple: 230 times."""
    if math.isfinite(value) and abs(value) < 10:
        return f"{100 * value:.1f}%"
    return f"{value:,.0f} times" if abs(value) < 1e5 else f"{number(value)} times"


def duration(seconds: float) -> str:
    """Format a duration in at most two units, the second whole: 0.8 s, 42 s, 3 min 20 s, 1 h, 2 d 5 h.

    It is rounded before it is split, so that no part is ever as large as the unit before it.
    """
    tenths = _nearest(10 * max(0.0, seconds))
    if tenths < 100:
        return f"{tenths / 10:.1f} s"
    whole = _nearest(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return _in_two(whole, MINUTE, "min", 1, "s")
    whole = MINUTE * _nearest(seconds / MINUTE)
    if whole < DAY:
        return _in_two(whole, HOUR, "h", MINUTE, "min")
    return _in_two(HOUR * _nearest(seconds / HOUR), DAY, "d", HOUR, "h")


def _in_two(whole: int, unit: int, word: str, part: int, part_word: str) -> str:
    first, rest = whole // unit, whole % unit // part
    return f"{first} {word} {rest} {part_word}" if rest else f"{first} {word}"


def ago(seconds: float) -> str:
    """How long ago something was, in the largest unit of which a whole one has passed."""
    if seconds < JUST_NOW_SECONDS:
        return "just now"
    minutes, hours = max(1, _nearest(seconds / MINUTE)), _nearest(seconds / HOUR)
    if minutes < HOUR // MINUTE:
        return f"{minutes} min ago"
    return f"{hours} h ago" if hours < DAY // HOUR else f"{_nearest(seconds / DAY)} d ago"


def _nearest(value: float) -> int:
    """Halves go up, as in JavaScript."""
    return math.floor(value + 0.5)
