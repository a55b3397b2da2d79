"""A plot: a rectangle of a sheet with an x and a y scale."""

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
"""Replacement for non-positive values on a log scale."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The limits of an axis, linear or logarithmic."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, values: Floats) -> Floats:
        """Map values to 0..1 between the limits; on a log scale non-positive values are far below 0."""
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        low, high = math.log10(self.low), math.log10(self.high)
        places: Floats = (np.log10(np.maximum(values, SMALLEST)) - low) / (high - low)
        return places


class Plot:
    """Curves in a frame with a left and a lower axis. `x` and `y` must be set before drawing."""

    def __init__(self, sheet: Sheet, frame: Box) -> None:
        self.sheet = sheet
        self.frame = frame
        self.x = self.y = Scale()
        self.ink: list[Points] = []
        """Curves drawn so far, which labels avoid."""
        corners = (frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)
        sheet.line(corners, color=EDGE, width=0.8, level=2.5)

    def at(self, x: Floats | Sequence[float], y: Floats | Sequence[float]) -> Points:
        """Map values to positions on the sheet."""
        frame = self.frame
        across, up = self.x.place(np.asarray(x, np.float64)), self.y.place(np.asarray(y, np.float64))
        left = frame.left + across * (frame.right - frame.left)
        return np.column_stack((left, frame.bottom + up * (frame.top - frame.bottom)))

    def across(self, x: float) -> float:
        """Map an x value to a position on the sheet."""
        return float(self.at([x], [1.0])[0, 0])

    def up(self, y: float) -> float:
        """Map a y value to a position on the sheet."""
        return float(self.at([1.0], [y])[0, 1])

    def curve(self, x: Floats, y: Floats, **style: Any) -> None:
        """Draw a curve, clipped to the frame; style arguments as for Sheet.line."""
        points = self.at(x, y)
        self.ink.append(points)
        self.sheet.line(points, inside=self.frame, **style)

    def upright(self, x: float, **style: Any) -> None:
        """Draw a vertical line over the plot's height."""
        place = self.across(x)
        self.sheet.line([(place, self.frame.bottom), (place, self.frame.top)], inside=self.frame, **style)

    def span(self, first: float, last: float, **style: Any) -> None:
        """Draw a vertical band over the plot's height."""
        box = Box(self.across(first), self.frame.bottom, self.across(last), self.frame.top)
        self.sheet.area(box, inside=self.frame, **style)

    def head(self, text: str) -> None:
        """Write the plot's title, leaving a line between for the labels of findings."""
        self.sheet.words(self.frame.left, self.frame.top + HEAD_RISE, text, size=10, color=INK, bold=True)
