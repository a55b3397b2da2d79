"""The learning-rate test's figure."""

import numpy as np
import pytest

from models.errors import InvalidRequest
from service.drawing.canvas import drawing
from service.measurements.draw import draw_lr_test, render_lr_test
from tests.service.curves.test_draw import picture_of

POINTS = [{"lr": float(lr), "loss": float(2.3 - lr if lr < 0.5 else 2.3 + 9 * lr)} for lr in np.geomspace(1e-5, 10, 60)]


def test_the_suggestion_and_the_divergence_are_marked() -> None:
    result = {"points": POINTS, "suggestion": {"lr": 0.05, "why": "The loss falls fastest there."}, "diverged_at": 3.0}
    with drawing():
        words = set(draw_lr_test(result, "baseline on cifar10").texts)
    assert {"suggested: 0.05", "diverged at 3", "baseline on cifar10", "The loss falls fastest there."} <= words
    assert picture_of(render_lr_test(result)).width == 1216


@pytest.mark.parametrize(
    ("points", "suggestion", "diverged_at"),
    [
        ([], None, None),
        (POINTS[:1], {"lr": 1e-5}, None),
        ([{"lr": 0.1, "loss": None}, {"lr": 1.0, "loss": float("nan")}], None, 0.1),
        ([{**point, "loss": 2.3} for point in POINTS], {"lr": 9.9, "why": None}, 1e-5),
        ([*POINTS[:30], {"lr": 5.0, "loss": 1e30}], {"lr": 50.0}, 1e9),
    ],
    ids=["nothing", "one", "not-finite", "flat", "exploding"],
)
def test_any_result_is_drawn(points: list[dict], suggestion: dict | None, diverged_at: float | None) -> None:
    result = {"points": points, "suggestion": suggestion, "diverged_at": diverged_at}
    assert render_lr_test(result) == render_lr_test(result)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        render_lr_test({"points": POINTS}, format="gif")
