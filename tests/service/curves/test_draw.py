"""Curves of every shape are drawn without failing, and to the same bytes each time."""

import io
import itertools
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from models.errors import InvalidRequest
from models.imports import HOME
from service.curves.draw import LOSS, MAX_RUNS, draw_curves, render_curves
from service.drawing import axis
from service.drawing.canvas import drawing
from service.drawing.plot import Plot
from service.drawing.series import CurveData, best_index, curves_of, lone_points, time_unit
from service.drawing.sheet import Box, Sheet
from tests.service.drawing.histories import history, nan_after, run

OVERFITS = {
    "summary": "Overfits from epoch 5.",
    "findings": [
        {"code": "overfitting", "severity": "warning", "evidence": {"epochs": [5, 9], "values": {}}},
        {"code": "divergence", "severity": "problem", "evidence": {"epochs": [9]}},
    ],
}


def picture_of(png: bytes) -> Image.Image:
    """The decoded PNG."""
    image = Image.open(io.BytesIO(png), formats=["PNG"])
    image.load()
    return image


def drawn(*runs: CurveData) -> set[str]:
    """Everything that is written in the figure of these runs by epoch."""
    with drawing():
        return set(draw_curves(runs, "epoch").texts)


def comments_of(svg: bytes) -> list[str]:
    """The words in an SVG: text is drawn as outlines, and each outline is preceded by its words in a comment."""
    builder = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.fromstring(svg, parser=ElementTree.XMLParser(target=builder))
    return [str(node.text).strip() for node in root.iter() if node.tag is ElementTree.Comment]


@pytest.mark.parametrize(
    "data",
    [
        run(1, 0),
        run(1, 1),
        run(1, 2),
        run(1, 50, verdict=OVERFITS),
        run(1, 1000, verdict=OVERFITS),
        run(1, 30, val_loss=nan_after(12, 0.7), val_accuracy=nan_after(12, 0.6)),
        run(1, 5, train_loss=float("nan"), val_loss=float("inf"), train_accuracy=0.1, val_accuracy=0.1),
        run(1, 5, val_loss=None, val_accuracy=None),
        run(1, 8, val_loss=0.0, train_loss=0.0, val_accuracy=1.0, train_accuracy=1.0),
        run(1, 8, val_loss=lambda epoch: 10.0 ** (4 * epoch), val_accuracy=0.1),
        run(1, 8, seconds=0.0),
    ],
    ids=["queued", "one", "two", "usual", "long", "nan-later", "no-loss", "none", "perfect", "exploding", "instant"],
)
@pytest.mark.parametrize("x", ["epoch", "seconds"])
@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_any_history_is_drawn(data: CurveData, x: str, file_format: str) -> None:
    figure = render_curves([data], x=x, format=file_format)
    if file_format == "png":
        assert picture_of(figure).width == 1664
    else:
        assert "#1 three blocks" in comments_of(figure)


def test_the_best_epochs_are_named() -> None:
    data = run(3, 10, val_loss=lambda e: 1 + abs(e - 4) / 10, val_accuracy=lambda e: 0.7 - abs(e - 6) / 100)
    words = drawn(data)
    assert "lowest 1.000, epoch 4" in words
    assert "best 70.0%, epoch 6" in words
    assert {"train", "validation"} <= words


def test_findings_are_drawn_and_a_verdict_of_another_shape_is_not() -> None:
    words = drawn(run(3, 10, verdict=OVERFITS))
    assert {"overfitting from epoch 5", "diverged in epoch 9", "Overfits from epoch 5."} <= words
    for odd in ({}, {"findings": None}, {"findings": [3, {"code": "collapse"}, {"code": "collapse", "evidence": []}]}):
        render_curves([run(3, 10, verdict=odd)])


def test_several_runs_are_told_apart_by_number_and_name() -> None:
    runs = [run(number, 10 + number, f"run {number}") for number in range(1, 8)]
    words = drawn(*runs)
    for number in range(1, 8):
        assert f"#{number}" in words
        assert f"#{number} run {number}" in words
    assert "compared with 6 others; validation solid, training dashed" in words


def test_more_runs_than_colours_are_drawn_and_too_many_refused() -> None:
    render_curves([run(number, 3) for number in range(MAX_RUNS)])
    with pytest.raises(InvalidRequest, match="one figure holds 1 to 12"):
        render_curves([run(number, 3) for number in range(MAX_RUNS + 1)])
    with pytest.raises(InvalidRequest):
        render_curves([])


def test_unknown_choices_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="x is 'steps'"):
        render_curves([run(1, 3)], x="steps")
    with pytest.raises(InvalidRequest, match="format is 'pdf'"):
        render_curves([run(1, 3)], format="pdf")


@pytest.mark.parametrize(
    "name",
    [
        "$\\frac{1}$ $x^",
        "<script>&amp;--></svg>",
        "nul\0 and \x1b[31m",
        "\u202eright to left",
        "日本語",
        "a" * 300,
        "\ud800",
    ],
)
@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_any_name_is_drawn_and_the_svg_stays_well_formed(name: str, file_format: str) -> None:
    figure = render_curves([run(1, 3, name), run(2, 3, name)], format=file_format)
    if file_format == "svg":
        comments_of(figure)


def test_the_same_figure_has_the_same_bytes_in_another_process_and_folder(tmp_path: Path) -> None:
    """In a folder with settings of matplotlib as well, which it reads from the working directory."""
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\nlines.linewidth: 9\nfont.size: 30\naxes.facecolor: red\n"
    )
    script = (
        "import sys, hashlib\n"
        "from tests.service.drawing.histories import run\n"
        "from service.curves.draw import render_curves\n"
        "verdict = {'findings': [{'code': 'overfitting', 'evidence': {'epochs': [5]}}]}\n"
        "runs = [run(1, 40, verdict=verdict)]\n"
        "print([hashlib.sha256(render_curves(runs, format=f)).hexdigest() for f in ('png', 'svg')])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-P", "-c", script],
            cwd=folder,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": HOME},
            capture_output=True,
            check=True,
        ).stdout
        for seed, folder in (("1", HOME), ("2", tmp_path))
    }
    assert len(outputs) == 1


def test_an_svg_carries_no_date() -> None:
    svg = render_curves([run(1, 3)], format="svg")
    assert b"<dc:date>" not in svg
    assert b"Creator" not in svg or b"Matplotlib v" not in svg


def test_gaps_stay_gaps_and_a_value_alone_gets_a_point() -> None:
    curves = curves_of(history(5, val_loss=lambda e: None if e in (2, 4) else float(e)))
    assert np.isnan(curves.val_loss).tolist() == [False, True, False, True, False]
    assert lone_points(curves.val_loss).tolist() == [True, False, True, False, True]
    assert lone_points(np.array([1.0, 2.0, np.nan])).tolist() == [False, False, False]


def test_the_best_is_the_first_of_equals_and_none_if_nothing_is_finite() -> None:
    assert best_index(np.array([np.nan, 2.0, 1.0, 1.0]), highest=False) == 2
    assert best_index(np.array([3.0, 2.0, 3.0]), highest=True) == 0
    assert best_index(np.array([np.nan]), highest=True) is None


def test_time_is_shown_in_the_unit_that_reads_best() -> None:
    assert time_unit(90) == (1.0, "seconds")
    assert time_unit(1800) == (60.0, "minutes")
    assert time_unit(86_400) == (3600.0, "hours")


def test_a_loss_scale_turns_logarithmic_only_when_a_linear_one_would_hide_the_curve() -> None:
    def scale_of(values: list[float]) -> str:
        plot = Plot(Sheet(300, 200), Box(50, 50, 250, 150))
        axis.set_values(plot, [np.array(values)], highest=False)
        return "log" if plot.y.log else "linear"

    assert scale_of([41.7, 5.0, 3.0, 2.5, 2.4, 2.3, 2.3]) == "log"
    assert scale_of([2.3, 1.0, 0.1, 0.01, 0.001]) == "linear"


@pytest.mark.parametrize("exploding", [False, True])
def test_every_tick_stands_at_the_plot(exploding: bool) -> None:
    values = np.array([0.4, 10.0, 100.0, 1e8] if exploding else [0.4, 0.7, 2.3])
    sheet = Sheet(300, 200)
    plot = Plot(sheet, Box(50, 50, 250, 150))
    axis.set_values(plot, [values], highest=False)
    ticks = [float(words) for words in sheet.texts]
    assert len(ticks) >= 3
    assert all(plot.y.low <= tick <= plot.y.high for tick in ticks)


@settings(deadline=None)
@given(st.floats(-12, 12), st.floats(0.1, 20))
def test_one_log_axis_has_one_notation(low: float, decades: float) -> None:
    sheet = Sheet(300, 200)
    plot = Plot(sheet, Box(50, 50, 250, 150))
    axis.set_values(plot, [np.array([10**low] * 3 + [10 ** (low + decades) + 21])], highest=False)
    assume(plot.y.log)
    assert len({"e" in word for word in sheet.texts}) == 1
    assert len(set(sheet.texts)) == len(sheet.texts)
    assert all(plot.y.low <= float(word) <= plot.y.high for word in sheet.texts)


@pytest.mark.parametrize(
    ("ticks", "words"),
    [
        ([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"]),
        ([0.0001, 1], ["0.0001", "1"]),
        ([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], ["1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1e0"]),
        ([0.5, 30, 2000], ["0.5", "30", "2000"]),
        ([1.0, 3e4, 1e9, 1e16], ["1e0", "3e4", "1e9", "1e16"]),
        ([], []),
    ],
)
def test_ticks_of_a_log_axis(ticks: list[float], words: list[str]) -> None:
    assert axis.one_notation(ticks) == words


NAMES = [
    "WWWWWWWW " * 20,
    "iiiiiiii " * 40,
    "\u65e5\u672c\u8a9e" * 40,
    "\u0645\u0631\u062d\u0628\u0627 " * 30,
    "a\u0301" * 90,
    "x",
]


@pytest.mark.parametrize(("num_runs", "name"), [*itertools.product([1, 2], NAMES), *itertools.product([12], NAMES[:2])])
def test_names_end_before_what_stands_beside_them(name: str, num_runs: int) -> None:
    with drawing():
        sheet = draw_curves([run(number, 3, name) for number in range(1, num_runs + 1)], "epoch")
    words = [(box, text) for box, text in sheet.boxes if text.startswith("#") and " " in text]
    assert len(words) == (1 if num_runs == 1 else num_runs + 1)
    for box, text in words:
        assert box.right <= sheet.width - 20, text
        assert [other for beside, other in sheet.boxes if other != text and box.overlaps(beside)] == []
        if name in ("iiiiiiii " * 40,):
            assert len(text) > 50  # narrow letters have more room than wide ones


def test_values_are_written_as_people_read_them() -> None:
    assert LOSS.text(0.87654) == "0.877"
    assert [LOSS.text(value) for value in (0.0, 0.00012, 123456.0)] == ["0.000", "1.20e-4", "1.23e5"]
    assert json.dumps(LOSS.names) == '["train_loss", "val_loss"]'
