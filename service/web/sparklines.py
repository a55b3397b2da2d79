"""Sparklines: a small SVG line of a history."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, MARGIN = 128.0, 30.0, 3.0
MAX_POINTS = 64


@dataclass(frozen=True, slots=True)
class Sparkline:
    """An SVG path of a series, and the position of its best value."""

    path: str
    best: tuple[float, float] | None
    width: float = WIDTH
    height: float = HEIGHT


def sparkline(values: Sequence[float | None], *, highest: bool = True) -> Sparkline | None:
    """Build the sparkline of a series; non-finite values are gaps. None without a finite value."""
    points = [(index, value) for index, value in enumerate(values) if value is not None and math.isfinite(value)]
    if not points:
        return None
    low, high = min(value for _, value in points), max(value for _, value in points)
    across = (WIDTH - 2 * MARGIN) / max(1, len(values) - 1)
    up = (HEIGHT - 2 * MARGIN) / (high - low) if high > low else 0.0
    base = HEIGHT - MARGIN if high > low else HEIGHT / 2

    def place(index: int, value: float) -> tuple[float, float]:
        return round(MARGIN + index * across, 1), round(base - (value - low) * up, 1)

    best = (max if highest else min)(points, key=lambda point: point[1])
    kept = [*points[:: max(1, len(points) // MAX_POINTS)], best, points[-1]]
    words, before = [], None
    for index, value in sorted(set(kept)):
        x, y = place(index, value)
        joined = before is not None and not any(
            value is None or not math.isfinite(value) for value in values[before:index]
        )
        words.append(f"{'L' if joined else 'M'}{x} {y}")
        before = index
    return Sparkline(" ".join(words), place(*best))
