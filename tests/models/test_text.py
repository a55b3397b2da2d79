"""Durations and ages are formatted well at every value, and alike in Python and the pages' script."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.text import ago, duration

SIZES = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
MOST = {"s": 59, "min": 59, "h": 23}
EDGES = [
    base + step for base in (0, 1, 10, 60, 600, 3600, 7200, 86_400, 172_800) for step in (-0.6, -0.5, -0.04, 0, 0.5)
]
spans = st.one_of(st.floats(0, 1e7), st.sampled_from([edge for edge in EDGES if edge >= 0]))
SCRIPT = Path(__file__).parents[2] / "service/web/static/epochal.js"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.84, "0.8 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (119.7, "2 min"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.5, "1 h"),
        (3629, "1 h"),
        (3630, "1 h 1 min"),
        (86_399, "1 d"),
        (90_000, "1 d 1 h"),
        (10_000_000, "115 d 18 h"),
        (-1, "0.0 s"),
    ],
)
def test_a_span_of_time(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@settings(deadline=None)
@given(spans)
def test_no_part_of_a_span_is_as_large_as_the_unit_before_it_nor_is_much_lost(seconds: float) -> None:
    parts = re.findall(r"([\d.]+) (s|min|h|d)", duration(seconds))
    assert 1 <= len(parts) <= 2
    assert all(float(number) <= MOST.get(unit, 1e9) for number, unit in parts)
    shown = sum(float(number) * SIZES[unit] for number, unit in parts)
    smallest = 0.1 if seconds < 9.9 else SIZES[parts[-1][1]] if len(parts) == 2 else SIZES[parts[0][1]]
    assert abs(shown - seconds) <= smallest / 2 + 1e-6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (44, "just now"),
        (45, "1 min ago"),
        (3569, "59 min ago"),
        (3570, "1 h ago"),
        (3599, "1 h ago"),
        (84_599, "23 h ago"),
        (84_600, "1 d ago"),
        (86_400 * 3, "3 d ago"),
    ],
)
def test_an_age(seconds: float, text: str) -> None:
    assert ago(seconds) == text


@settings(deadline=None)
@given(spans)
def test_an_age_never_reaches_the_next_unit(seconds: float) -> None:
    found = re.fullmatch(r"(\d+) (min|h|d) ago", ago(seconds))
    assert found is None or 1 <= int(found[1]) <= MOST.get(found[2], 1e9)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run the pages' script with")
def test_the_pages_script_writes_spans_as_python_does() -> None:
    function = re.search(r"^function duration\(.*?^}", SCRIPT.read_text(), re.DOTALL | re.MULTILINE)
    assert function
    seconds = [*EDGES, *(1.37**power for power in range(-10, 52)), *(number + 0.5 for number in range(0, 4000, 7))]
    program = f"{function[0]}\nconsole.log(JSON.stringify({json.dumps(seconds)}.map(duration)))"
    output = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True, timeout=30).stdout
    assert json.loads(output) == [duration(one) for one in seconds]
