"""Figures and counts as people read them, shared by every sentence about an experiment."""

import math


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """1 epoch, 2 epochs, 10,000 epochs; `nouns` is the plural where it is not the noun with an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or noun + 's'}"


def number(value: float) -> str:
    """A loss or rate: three significant figures or so, a power of ten where there would be many zeros."""
    if not math.isfinite(value):
        return "a value that is not finite"
    if value != 0 and (abs(value) < 0.001 or abs(value) >= 1e5):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def percent(value: float) -> str:
    """An accuracy or a share: 69.5%. What is more than ten times the whole is said as a multiple: 230 times."""
    if math.isfinite(value) and abs(value) < 10:
        return f"{100 * value:.1f}%"
    return f"{value:,.0f} times" if abs(value) < 1e5 else f"{number(value)} times"
