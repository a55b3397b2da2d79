"""Placement of labels so that they cover neither curves nor each other."""

import numpy as np

from service.drawing.plot import Plot
from service.drawing.sheet import Box, Points
from service.drawing.text import width_of

LINE_HEIGHT = 1.15
SPACING = 1.8
"""Points between two samples along a curve."""


def text_size(text: str, size: float, *, bold: bool = False) -> tuple[float, float]:
    """Return width and height of a line of text."""
    return width_of(text, size, bold=bold), LINE_HEIGHT * size


def along_curves(plot: Plot) -> Points:
    """Sample points along every curve of the plot, for overlap tests."""
    return np.concatenate([np.empty((0, 2)), *(_every_few(curve) for curve in plot.ink)])


def _every_few(points: Points) -> Points:
    if len(points) > 1:
        start, change = points[:-1], np.diff(points, axis=0)
        finite = np.isfinite(change).all(axis=1)
        start, change = start[finite], change[finite]
        counts = 1 + np.minimum(np.hypot(change[:, 0], change[:, 1]) / SPACING, 2000).astype(int)
        index = np.repeat(np.arange(len(counts)), counts)
        fraction = (np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[index]
        between: Points = start[index] + change[index] * fraction[:, None]
        points = np.concatenate((points, between))
    return points[np.isfinite(points).all(axis=1)]


def place(plot: Plot, anchor: tuple[float, float], size: tuple[float, float], taken: list[Box], *, above: bool) -> Box:
    """Choose the position for a label of `size` near `anchor` that covers the least; `above` wins ties.

    `anchor` is a place on the sheet. The spot is added to `taken`.
    """
    x, y = anchor
    width, height = size
    frame = plot.frame
    ink = along_curves(plot)
    best, least = Box(x, y, x + width, y + height), float("inf")
    for row, gap in enumerate((0.6, 1.2, 2.0, 3.0, 4.5, 6.5)):
        if least <= 2 * row:  # what every place of this row costs at least
            break
        for upward in (above, not above):
            bottom = y + gap * height if upward else y - (gap + 1) * height
            for shift in (0.5, 0.0, 1.0, 0.25, 0.75):
                left = min(max(x - shift * width, frame.left + 1), frame.right - width - 1)
                box = Box(left, bottom, left + width, bottom + height)
                cost = (
                    3 * box.count_inside(ink)
                    + 100 * (max(0.0, frame.bottom - box.bottom) + max(0.0, box.top - frame.top))
                    + 500 * sum(box.overlaps(other) for other in taken)
                    + 2 * row
                    + (upward is not above)
                    + abs(shift - 0.5)
                )
                if cost < least:
                    best, least = box, cost
    taken.append(best)
    return best


def spread(wanted: list[float], separation: float, low: float, high: float) -> list[float]:
    """Spread heights near the `wanted` ones, at least `separation` apart, between `low` and `high` if they fit."""
    if len(wanted) > 1:
        separation = min(separation, (high - low) / (len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups: list[tuple[float, int]] = []  # (height of the middle, count): neighbours that touch share their mean
    for index in order:
        groups.append((wanted[index], 1))
        while len(groups) > 1:
            (below, n), (above, m) = groups[-2:]
            if below + (n - 1) * separation / 2 + separation <= above - (m - 1) * separation / 2:
                break
            groups[-2:] = [((n * below + m * above) / (n + m), n + m)]
    placed = [middle + (k - (count - 1) / 2) * separation for middle, count in groups for k in range(count)]
    for k in range(len(placed)):  # up from the floor, then down from the ceiling
        placed[k] = max(placed[k], low + k * separation)
    for k in range(len(placed)):
        placed[-1 - k] = min(placed[-1 - k], high - k * separation)
    result = [0.0] * len(wanted)
    for height, index in zip(placed, order, strict=True):
        result[index] = height
    return result
