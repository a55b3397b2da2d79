"""Where a label can stand without covering a curve or another label.

Everything here is in the figure's pixels. Text is measured by an average width of the font's characters: exact
enough for finding room, and the same on every machine.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

CHARACTER_WIDTH = 0.60  # of the font size: DejaVu Sans, figures and small letters mixed
LINE_HEIGHT = 1.15


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether two rectangles share any area."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def count_inside(self, points: NDArray[np.float64]) -> int:
        """How many of the points (n, 2) lie inside."""
        x, y = points[:, 0], points[:, 1]
        return int(((x > self.left) & (x < self.right) & (y > self.bottom) & (y < self.top)).sum())


def text_size(text: str, points: float, dpi: float) -> tuple[float, float]:
    """About how wide and high a line of text is, in pixels."""
    pixels = points * dpi / 72
    return len(text) * CHARACTER_WIDTH * pixels, LINE_HEIGHT * pixels


def in_figure(ax: Axes, x: float, y: float) -> tuple[float, float]:
    """A place in pixels as a fraction of the figure: pixels differ between file formats, fractions do not."""
    place = ax.figure.transFigure.inverted().transform((x, y))
    return float(place[0]), float(place[1])


def along_lines(ax: Axes) -> NDArray[np.float64]:
    """Points (n, 2) every few pixels along every line of the axes: where ink is. Guides (by gid) are not counted."""
    pieces = [np.empty((0, 2))]
    for line in ax.get_lines():
        if line.get_gid() != "guide":
            pieces.append(_every_few_pixels(line.get_transform().transform(np.asarray(line.get_xydata(), np.float64))))
    return np.concatenate(pieces)


def _every_few_pixels(points: NDArray[np.float64], step: float = 4.0) -> NDArray[np.float64]:
    if len(points) > 1:
        start, change = points[:-1], np.diff(points, axis=0)
        finite = np.isfinite(change).all(axis=1)
        start, change = start[finite], change[finite]
        counts = 1 + np.minimum(np.hypot(change[:, 0], change[:, 1]) / step, 2000).astype(int)
        index = np.repeat(np.arange(len(counts)), counts)
        fraction = (np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[index]
        between: NDArray[np.float64] = start[index] + change[index] * fraction[:, None]
        points = np.concatenate((points, between))
    return points[np.isfinite(points).all(axis=1)]


def place(ax: Axes, anchor: tuple[float, float], size: tuple[float, float], taken: list[Box], *, above: bool) -> Box:
    """The spot for a label of `size` near `anchor` (data coordinates) that covers least, `above` it if that is equal.

    The spot is added to `taken`.
    """
    x, y = ax.transData.transform(anchor)
    width, height = size
    frame = ax.get_window_extent()
    ink = along_lines(ax)
    best, least = Box(x, y, x + width, y + height), float("inf")
    for row, gap in enumerate((0.6, 1.2, 2.0, 3.0, 4.5, 6.5)):
        for upward in (above, not above):
            bottom = y + gap * height if upward else y - (gap + 1) * height
            for shift in (0.5, 0.0, 1.0, 0.25, 0.75):
                left = min(max(x - shift * width, frame.x0 + 2), frame.x1 - width - 2)
                box = Box(left, bottom, left + width, bottom + height)
                cost = (
                    3 * box.count_inside(ink)
                    + 50 * (max(0.0, frame.y0 - box.bottom) + max(0.0, box.top - frame.y1))
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
    """Heights near the `wanted` ones, at least `separation` apart and between `low` and `high` as far as they fit."""
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
