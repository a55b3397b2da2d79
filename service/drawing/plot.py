"""A plot: a rectangle of a sheet with a scale along each side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.drawing.canvas import INK
from service.drawing.series import Floats
from service.drawing.sheet import Box, Points, Sheet

EDGE = "#9A9A9A"
HEAD_RISE = 20.0
"""A line of findings fits between the plot and its head."""
SMALLEST = 1e-300
"""What a logarithm is taken of where there is none."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The values at both ends of a side."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, values: Floats) -> Floats:
        """Where values stand: 0 at the low end, 1 at the high one. What is not positive is far below a log scale."""
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        low, high = math.log10(self.low), math.log10(self.high)
        places: Floats = (np.log10(np.maximum(values, SMALLEST)) - low) / (high - low)
        return places


class Plot:
    """Curves in a frame, of which the left and the lower edge are drawn. `x` and `y` are set before anything is put."""

    def __init__(self, sheet: Sheet, frame: Box) -> None:
        self.sheet = sheet
        self.frame = frame
        self.x = self.y = Scale()
        self.ink: list[Points] = []
        """Curves, which labels keep clear of."""
        corners = (frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)
        sheet.line(corners, color=EDGE, width=0.8, level=2.5)

    def at(self, x: Floats | Sequence[float], y: Floats | Sequence[float]) -> Points:
        """Where on the sheet values stand."""
        frame = self.frame
        across, up = self.x.place(np.asarray(x, np.float64)), self.y.place(np.asarray(y, np.float64))
        left = frame.left + across * (frame.right - frame.left)
        return np.column_stack((left, frame.bottom + up * (frame.top - frame.bottom)))

    def across(self, x: float) -> float:
        """Where on the sheet a value of the lower side stands."""
        return float(self.at([x], [1.0])[0, 0])

    def up(self, y: float) -> float:
        """Where on the sheet a value of the left side stands."""
        return float(self.at([1.0], [y])[0, 1])

    def curve(self, x: Floats, y: Floats, **style: Any) -> None:
        """A curve, cut off at the frame; the style is Sheet.line's."""
        points = self.at(x, y)
        self.ink.append(points)
        self.sheet.line(points, inside=self.frame, **style)

    def upright(self, x: float, **style: Any) -> None:
        """A line from the bottom to the top."""
        place = self.across(x)
        self.sheet.line([(place, self.frame.bottom), (place, self.frame.top)], inside=self.frame, **style)

    def span(self, first: float, last: float, **style: Any) -> None:
        """A tint from the bottom to the top."""
        box = Box(self.across(first), self.frame.bottom, self.across(last), self.frame.top)
        self.sheet.area(box, inside=self.frame, **style)

    def head(self, text: str) -> None:
        """Write what it shows above its left end, leaving a line between for what is found in it."""
        self.sheet.words(self.frame.left, self.frame.top + HEAD_RISE, text, size=10, color=INK, bold=True)
