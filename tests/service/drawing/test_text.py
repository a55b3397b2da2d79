"""Names in any script: truncated, drawn in a font that has them, and left as text in an SVG without one."""

import logging
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager

from service.curves.draw import render_curves
from service.drawing import text
from service.drawing.canvas import drawing
from service.drawing.text import BOX, clean, drawable, families, fit, left_to_right, outline, width_of
from service.kernels.draw import render_kernels
from service.measurements.draw import render_lr_test
from tests.service.drawing.histories import run

ARABIC = "\u0645\u0631\u062d\u0628\u0627"
CHINESE = "\u4e09\u5757"
STIX = Path(matplotlib.get_data_path()) / "fonts/ttf/STIXGeneral.ttf"
STIX_ONLY = chr(min(set(font_manager.get_font(STIX).get_charmap()) - text._dejavu() - set(range(0xE000, 0xF900))))
"""A character that the STIX font has, which comes with matplotlib, and DejaVu Sans has not."""


@pytest.fixture
def only_stix(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine on which no other font is installed."""
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    entries = [one for one in font_manager.fontManager.ttflist if Path(one.fname).parent == folder]
    monkeypatch.setattr(text, "_candidates", lambda: [one for one in entries if one.name.startswith("STIX")])
    caches = (text._installed_with, outline)
    for cache in caches:
        cache.cache_clear()
    for name in ("_missing", "_advised"):
        monkeypatch.setattr(text, name, set())
    yield
    for cache in caches:
        cache.cache_clear()


def test_a_name_has_one_line_and_no_marks_that_would_turn_it_around() -> None:
    assert clean("a\n\tb\0\u202ec  \u65e5\ud800 ") == "a bc \u65e5"


@settings(deadline=None)
@given(st.text(max_size=80), st.floats(20, 400), st.integers(0, 12), st.booleans())
def test_what_is_cut_fits_and_what_fits_is_not_cut(name: str, width: float, keep_end: int, bold: bool) -> None:
    cut = fit(name, width, 9, bold=bold, keep_end=keep_end)
    line = clean(name)
    if width_of(line, 9, bold=bold) <= width:
        assert cut == line
    else:
        start, _, end = cut.rpartition(text.CUT)
        assert line.startswith(start)
        assert line.endswith(end)
        assert len(end) <= keep_end
        assert width_of(cut, 9, bold=bold) <= width


@given(figure=st.text("".join(sorted(text.FIGURES)), min_size=1, max_size=12), bold=st.booleans())
@settings(max_examples=30)
def test_a_figure_looks_as_if_it_were_laid_out_as_a_whole(figure: str, bold: bool) -> None:
    composed, whole = outline(figure, bold), text._set(figure, bold)
    assert composed.width == pytest.approx(whole.width)
    np.testing.assert_allclose(composed.path.vertices, whole.path.vertices, atol=1e-9)
    np.testing.assert_array_equal(composed.path.codes, whole.path.codes)


def test_wide_letters_are_cut_sooner_than_narrow_ones() -> None:
    assert 3 * len(fit("W" * 200, 200, 9)) < len(fit("i" * 200, 200, 9))
    assert fit("#1 a long name, features.0", 110, 9, keep_end=10).endswith("\u2026features.0")


def test_a_font_that_is_installed_is_taken_for_what_the_first_lacks(only_stix: None) -> None:
    assert families("abc") == ("DejaVu Sans",)
    assert families(f"a{STIX_ONLY}b")[0] == "DejaVu Sans"
    assert families(f"a{STIX_ONLY}b")[1].startswith("STIX")
    assert drawable(f"a{STIX_ONLY}") == f"a{STIX_ONLY}"
    assert len(outline(STIX_ONLY, False).path) != len(outline(BOX, False).path)


def test_what_no_font_has_is_a_box_and_the_log_says_once_what_to_install(
    only_stix: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert drawable(f"x{CHINESE}\uac00") == f"x{BOX * 3}"
    assert len(caplog.messages) == 1
    assert "install fonts-noto-cjk" in caplog.messages[0]
    assert outline(CHINESE, True).path.vertices.tolist() == outline(BOX * 2, True).path.vertices.tolist()


def words_of(svg: bytes) -> list[str]:
    """The text elements of an SVG."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    "name", [CHINESE, "\ud55c\uad6d\uc5b4", "\u65e5\u672c\u8a9e <&>", "\U0001f9ea test", "\u0939\u093f"]
)
def test_an_svg_holds_such_names_as_text(only_stix: None, name: str) -> None:
    result = {"points": [{"lr": 0.1, "loss": 1.0}], "suggestion": {"lr": 0.1, "why": "w"}, "diverged_at": None}
    curves = render_curves([run(1, 3, name), run(2, 3, "plain")], format="svg")
    assert words_of(curves) == [f"#1 {name}", f"#1 {name}"]  # title and legend; the plain one is drawn
    assert words_of(render_lr_test(result, title=name, format="svg")) == [name]
    kernels = render_kernels(np.ones((1, 1, 3, 3), np.float32), title=f"{name}, features.0", format="svg")
    assert f"{name}, features.0" in words_of(kernels)
    assert re.search(rb"<title>#1 ", curves)


def test_ordinary_names_are_outlines_that_look_the_same_everywhere() -> None:
    for name in (
        "plain",
        "caf\u00e9 \u03b1\u03b2 \u0416",
        "\u0645\u0631\u062d\u0628\u0627",
        "\u05e9\u05dc\u05d5\u05dd",
    ):
        assert words_of(render_curves([run(1, 3, name)], format="svg")) == []


def test_a_script_that_is_written_from_the_right_is() -> None:
    """The first letter of an Arabic word stands at its right end, and letters are joined."""
    with drawing():
        alone = [outline(letter, False).width for letter in ARABIC]
        joined = outline(ARABIC, False)
        numbered = outline(left_to_right(f"#7 {ARABIC}"), False)
    assert joined.width < sum(alone)
    first = numbered.path.vertices[:, 0] < outline("#7", False).width
    assert np.allclose(numbered.path.vertices[first], outline("#7", False).path.vertices, atol=0.02)
