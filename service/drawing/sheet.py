"""A drawing surface for lines, areas, dots and text, in points (1/72 inch) from the lower left; PNG or SVG.

matplotlib's renderers draw it, in its fonts, but without its figures, axes and artists, which took two thirds of a
picture's time. Outlines of words are cached, since most recur: numbers at ticks, names of series, findings.
"""
# mypy: disable-error-code="no-untyped-call"
# matplotlib's renderers state no types

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.backend_bases import GraphicsContextBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox
from numpy.typing import NDArray

from service.drawing.canvas import DPI, png
from service.drawing.text import FONT, clean, font, is_common, left_to_right, outline, width_of

Points = NDArray[np.float64]
"""Positions, of shape (n, 2)."""

Renderer = Any
ACROSS = {"left": 0.0, "center": 0.5, "right": 1.0}
UP = {"baseline": 0.0, "center": 0.26, "top": 0.76, "bottom": -0.24}
"""Offset of the baseline by vertical alignment, in font sizes: DejaVu Sans extends from -0.24 to 0.76."""
DOT = Path.unit_circle()
CROSS = Path([(-1, -1), (1, 1), (-1, 1), (1, -1)], [Path.MOVETO, Path.LINETO] * 2)


PICTURE_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlaps(self, other: "Box") -> bool:
        """Whether two rectangles overlap."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def count_inside(self, points: Points) -> int:
        """Count the points inside."""
        x, y = points[:, 0], points[:, 1]
        return int(((x > self.left) & (x < self.right) & (y > self.bottom) & (y < self.top)).sum())


class Sheet:
    """A drawing surface. Items are drawn by `level`, and within a level in order of insertion."""

    def __init__(self, width: float, height: float) -> None:
        self.width = width
        self.height = height
        self.texts: list[str] = []
        """All texts on the sheet."""
        self.boxes: list[tuple[Box, str]] = []
        """Bounding boxes of the texts, from descent to the top of capitals."""
        self._items: list[tuple[float, Callable[[Renderer], None]]] = []

    def line(
        self,
        points: Points | Sequence[tuple[float, float]],
        *,
        color: str,
        width: float,
        dash: Sequence[float] = (),
        alpha: float = 1.0,
        inside: Box | None = None,
        level: float = 2,
    ) -> None:
        """Draw a line through points, with gaps at NaN; `dash` has strokes and gaps in line widths."""
        cap: Literal["butt", "round"] = "butt" if dash else "round"

        def draw(renderer: Renderer) -> None:
            pen = _pen(renderer, color, width, alpha, inside)
            pen.set_capstyle(cap)
            pen.set_joinstyle("round")
            if dash:
                pen.set_dashes(0, [part * width for part in dash])
            renderer.draw_path(pen, Path(np.asarray(points, np.float64)), _to_pixels(renderer))

        self._items.append((level, draw))

    def area(self, box: Box, *, color: str, alpha: float = 1.0, inside: Box | None = None, level: float = 0) -> None:
        """Draw a filled rectangle."""
        corners = [(box.left, box.bottom), (box.right, box.bottom), (box.right, box.top), (box.left, box.top)]

        def draw(renderer: Renderer) -> None:
            pen = _pen(renderer, color, 0, alpha, inside)
            renderer.draw_path(pen, Path([*corners, corners[0]], closed=True), _to_pixels(renderer), pen.get_rgb())

        self._items.append((level, draw))

    def dots(
        self,
        points: Points | Sequence[tuple[float, float]],
        *,
        color: str,
        size: float,
        edge: float = 0.0,
        shape: Path = DOT,
        alpha: float = 1.0,
        level: float = 6,
    ) -> None:
        """Draw dots of a diameter, white inside if they have an edge; or crosses."""

        def draw(renderer: Renderer) -> None:
            pen = _pen(renderer, color, edge, alpha)
            fill = (1.0, 1.0, 1.0, 1.0) if edge else pen.get_rgb()
            form = Affine2D().scale(renderer.points_to_pixels(size / 2))
            places = Path(np.asarray(points, np.float64))
            renderer.draw_markers(pen, shape, form, places, _to_pixels(renderer), None if shape is CROSS else fill)

        self._items.append((level, draw))

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        color: str,
        bold: bool = False,
        across: str = "left",
        up: str = "baseline",
        edge: float = 0.0,
        level: float = 3,
        turned: bool = False,
    ) -> None:
        """Write a line of text, aligned at x by left, centre or right and at y by baseline, centre, top or bottom.

        An edge is white and keeps words legible over lines. `turned` text runs upwards: its left, centre or right
        is at y, its baseline, centre, top or bottom at x.
        """
        self.texts.append(text)
        text = left_to_right(text)
        width = width_of(text, size, bold=bold)
        if turned:
            self._turned_words(x + UP[up] * size, y - ACROSS[across] * width, text, width, size, color, level)
            return
        left, base = x - ACROSS[across] * width, y - UP[up] * size
        down = self.height - base
        self.boxes.append((Box(left, base - 0.2 * size, left + width, base + 0.73 * size), self.texts[-1]))

        def draw(renderer: Renderer) -> None:
            if edge:
                place = Affine2D().scale(size).translate(left, base)
                pen = _pen(renderer, "white", edge)
                pen.set_joinstyle("round")
                renderer.draw_path(pen, outline(text, bold).path, place + _to_pixels(renderer))
            x, y = renderer.points_to_pixels(left), renderer.points_to_pixels(down)
            renderer.draw_text(_pen(renderer, color), x, y, text, font((FONT,), size, bold), 0)

        self._items.append((level, draw))

    def _turned_words(
        self, baseline: float, bottom: float, text: str, width: float, size: float, color: str, level: float
    ) -> None:
        self.boxes.append((Box(baseline - 0.73 * size, bottom, baseline + 0.2 * size, bottom + width), self.texts[-1]))
        down = self.height - bottom

        def draw(renderer: Renderer) -> None:
            x, y = renderer.points_to_pixels(baseline), renderer.points_to_pixels(down)
            renderer.draw_text(_pen(renderer, color), x, y, text, font((FONT,), size, bold=False), 90)

        self._items.append((level, draw))

    def picture(self, left: float, top: float, pixels: NDArray[np.uint8]) -> None:
        """Draw an image (height, width, 3) without resampling: its pixels are the PNG's, and squares in the SVG.

        Its upper left corner is at (left, top), which should be whole pixels of the PNG.
        """
        height, width = (side * 72 / DPI for side in pixels.shape[:2])
        opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])

        def draw(renderer: Renderer) -> None:
            pen, bottom = _pen(renderer, "white"), top - height
            if isinstance(renderer, RendererSVG):  # with a transform it is marked as not to be smoothed
                renderer.draw_image(pen, left, bottom, opaque[::-1], Affine2D().scale(width, height))
                return
            x, y = (round(renderer.points_to_pixels(place)) for place in (left, bottom))
            renderer.draw_image(pen, x, y, opaque[::-1])

        self._items.append((PICTURE_LEVEL, draw))

    def save(self, file_format: str, *, title: str) -> bytes:
        """Render the sheet as PNG or SVG; only the SVG contains the title."""
        return self.svg(title) if file_format == "svg" else self.png()

    def png(self, dpi: int = DPI) -> bytes:
        """Render the sheet as PNG. To be called inside `drawing`."""
        width, height = (round(side * dpi / 72) for side in (self.width, self.height))
        renderer = _pixels(width, height, dpi)
        pixels = np.asarray(renderer.buffer_rgba())
        pixels.fill(255)
        self._draw(renderer)
        return png(pixels[:, :, :3], dpi)

    def svg(self, title: str) -> bytes:
        """Render the sheet as SVG."""
        self.area(Box(0, 0, self.width, self.height), color="white", level=-1)
        file = io.StringIO()
        metadata: dict[str, Any] = {"Date": None, "Creator": "Epochal", "Title": clean(title)[:300]}
        renderer = Vectors(self.width, self.height, file, image_dpi=DPI, metadata=metadata)
        self._draw(renderer)
        renderer.finalize()
        return file.getvalue().encode()

    def _draw(self, renderer: Renderer) -> None:
        for _, draw in sorted(self._items, key=lambda item: item[0]):
            draw(renderer)


class Outlines(RendererAgg):
    """matplotlib's pixels, with words as cached outlines: laying out every glyph again is half of a figure's time."""

    def draw_text(
        self, gc: Any, x: Any, y: Any, s: Any, prop: Any, angle: Any, ismath: Any = False, mtext: Any = None
    ) -> None:
        """Fill the outline of `s`, in pixels from the upper left corner, turned by `angle` degrees."""
        size = prop.get_size_in_points() * self.dpi / 72
        place = Affine2D().scale(size).rotate_deg(angle).translate(x, self.height - y)
        gc.set_linewidth(0.0)
        self.draw_path(gc, outline(s, prop.get_weight() == "bold").path, place, gc.get_rgb())


class Vectors(RendererSVG):
    """matplotlib's SVG: words are outlines, which look the same everywhere, but for characters DejaVu Sans lacks."""

    def draw_text(
        self, gc: Any, x: Any, y: Any, s: Any, prop: Any, angle: Any, ismath: Any = False, mtext: Any = None
    ) -> None:
        """Draw `s` from (x, y) in points from the upper left corner."""
        with contextlib.nullcontext() if is_common(s) else matplotlib.rc_context({"svg.fonttype": "none"}):
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)


@lru_cache(1)
def _pixels(width: int, height: int, dpi: int) -> Outlines:
    """Return a pixel buffer. The last one is reused: most pictures have one size, and fresh memory takes 3 ms."""
    return Outlines(width, height, dpi)


def _pen(
    renderer: Renderer, color: str, width: float = 0.0, alpha: float = 1.0, inside: Box | None = None
) -> GraphicsContextBase:
    """Create a graphics context with a width, a colour and a clip box."""
    pen: GraphicsContextBase = renderer.new_gc()
    pen.set_alpha(alpha)
    pen.set_foreground(color)
    pen.set_linewidth(width)  # points, as for dashes: renderers know their resolution
    if inside is not None:
        corners = inside.left, inside.bottom, inside.right, inside.top
        pen.set_clip_rectangle(Bbox.from_extents(*(renderer.points_to_pixels(one) for one in corners)))
    return pen


def _to_pixels(renderer: Renderer) -> Affine2D:
    return Affine2D().scale(renderer.points_to_pixels(1))
