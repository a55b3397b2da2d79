"""A sheet draws its items at their positions, in the right order and size, in both formats."""

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.drawing.canvas import drawing
from service.drawing.sheet import CROSS, Box, Sheet
from service.drawing.text import clean, width_of

DPI = 144
"""Two pixels a point."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def pixels_of(sheet: Sheet) -> np.ndarray:
    """The sheet as (height, width, 3), the first row at the top."""
    with drawing():
        return np.asarray(Image.open(io.BytesIO(sheet.png(DPI)), formats=["PNG"]))


def inked(sheet: Sheet) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of all that is not white, in points."""
    rows, columns = np.nonzero((pixels_of(sheet) != 255).any(axis=2))
    return (
        columns.min() / 2,
        sheet.height - (rows.max() + 1) / 2,
        (columns.max() + 1) / 2,
        sheet.height - rows.min() / 2,
    )


def test_an_empty_sheet_is_white_and_as_large_as_it_says() -> None:
    picture = pixels_of(Sheet(40, 30))
    assert picture.shape == (60, 80, 3)
    assert (picture == 255).all()


def test_an_area_covers_its_box_and_no_more() -> None:
    sheet = Sheet(40, 30)
    sheet.area(Box(10, 5, 20, 25), color="black")
    assert inked(sheet) == (10, 5, 20, 25)


def test_a_line_is_as_wide_as_it_says_and_ends_at_the_box_that_it_stays_in() -> None:
    sheet = Sheet(40, 30)
    sheet.line([(0, 15), (40, 15)], color="black", width=2, inside=Box(10, 0, 30, 30))
    assert inked(sheet) == (10, 14, 30, 16)


def test_a_gap_in_a_line_stays_white() -> None:
    sheet = Sheet(40, 30)
    sheet.line([(2, 15), (10, 15), (np.nan, np.nan), (30, 15), (38, 15)], color="black", width=2)
    picture = pixels_of(sheet)
    assert tuple(picture[30, 10]) == tuple(picture[30, 70]) == BLACK
    assert (picture[:, 26:54] == 255).all()


def test_what_has_a_higher_level_covers_what_came_later() -> None:
    sheet = Sheet(40, 30)
    sheet.area(Box(0, 0, 40, 30), color="#FF0000", level=2)
    sheet.area(Box(0, 0, 40, 30), color="#0000FF", level=1)
    assert tuple(pixels_of(sheet)[5, 5]) == (255, 0, 0)


def test_dots_have_a_diameter_and_are_white_inside_their_edge() -> None:
    sheet = Sheet(40, 30)
    sheet.dots([(20, 15)], color="black", size=10, edge=2)
    left, bottom, right, top = inked(sheet)
    assert abs(right - left - 12) <= 1  # the edge is drawn half outside
    assert abs(top - bottom - 12) <= 1
    assert tuple(pixels_of(sheet)[30, 40]) == WHITE


def test_a_cross_is_two_strokes() -> None:
    sheet = Sheet(40, 30)
    sheet.dots([(20, 15)], color="black", size=10, edge=2, shape=CROSS)
    picture = pixels_of(sheet)
    assert tuple(picture[30, 40]) == BLACK
    assert tuple(picture[30, 34]) == WHITE


@settings(deadline=None)
@given(st.sampled_from(["left", "center", "right"]), st.sampled_from(["top", "center", "bottom"]))
def test_words_stand_where_they_are_put(across: str, up: str) -> None:
    sheet = Sheet(100, 60)
    sheet.words(50, 30, "Hlp", size=20, color="black", across=across, up=up)
    left, bottom, right, top = inked(sheet)
    x, y = {"left": left, "center": (left + right) / 2, "right": right}, {"bottom": bottom, "top": top}
    assert abs(x[across] - 50) < 2.5  # a letter stands a little to the right of where it begins
    assert abs({**y, "center": (bottom + top) / 2}[up] - 30) < 1
    assert sheet.texts == ["Hlp"]


def test_an_edge_keeps_words_legible_over_ink() -> None:
    plain, edged = Sheet(100, 60), Sheet(100, 60)
    for sheet, edge in ((plain, 0.0), (edged, 3.0)):
        sheet.area(Box(0, 0, 100, 60), color="#808080")
        sheet.words(50, 30, "words", size=20, color="black", across="center", up="center", edge=edge)
    assert not (pixels_of(plain) == 255).any()
    assert (pixels_of(edged) == 255).any()


@settings(deadline=None)
@given(st.text(max_size=40), st.booleans())
def test_any_words_have_a_width_and_can_be_drawn(text: str, bold: bool) -> None:
    sheet = Sheet(40, 30)
    sheet.words(2, 2, clean(text), size=9, color="black", bold=bold)
    pixels_of(sheet)


def test_width_grows_with_size_and_weight() -> None:
    assert width_of("validation", 18) == 2 * width_of("validation", 9)
    assert width_of("validation", 9, bold=True) > width_of("validation", 9)
    assert width_of("", 9) == 0


@settings(deadline=None)
@given(st.text("abcXYZ019.,%#", min_size=1, max_size=12), st.text("abcXYZ019.,%#", min_size=1, max_size=12))
def test_a_line_is_as_wide_as_its_words_and_the_space_between(first: str, second: str) -> None:
    together = width_of(f"{first} {second}", 10)
    assert abs(together - width_of(first, 10) - width_of(second, 10) - 3.18) < 1e-6


def test_an_svg_has_the_sheets_size_and_words() -> None:
    sheet = Sheet(100, 60)
    sheet.words(50, 30, "validation", size=9, color="black")
    with drawing():
        svg = sheet.svg("a title").decode()
    assert 'width="100pt" height="60pt"' in svg
    assert "<!-- validation -->" in svg
    assert "<title>a title</title>" in svg
