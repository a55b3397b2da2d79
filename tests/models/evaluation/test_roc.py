"""ROC curves and their areas, against comparing every pair of images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.mistakes import surest_mistakes
from models.evaluation.probabilities import softmax
from models.evaluation.roc import macro_curve, roc_by_class, roc_curve, thinned

SCORED = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=50)


@given(SCORED)
def test_the_area_is_how_often_a_positive_is_scored_above_a_negative(scored: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([float(one) for one, _ in scored]), np.array([one for _, one in scored])
    curve = roc_curve(scores, positive)
    if positive.all() or not positive.any():
        assert curve is None
        return
    assert curve is not None
    differences = scores[positive][:, None] - scores[~positive][None]
    assert curve.area == pytest.approx(((differences > 0) + 0.5 * (differences == 0)).mean())
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)
    assert (np.diff(curve.false_positive_rate) >= 0).all()
    assert (np.diff(curve.true_positive_rate) >= 0).all()


@given(SCORED, st.integers(2, 20))
def test_a_thinned_curve_keeps_its_ends_and_only_points_of_the_curve(
    scored: list[tuple[int, bool]], points: int
) -> None:
    curve = roc_curve(np.array([float(one) for one, _ in scored]), np.array([one for _, one in scored]))
    if curve is None:
        return
    x, y = thinned(curve, points)
    assert len(x) <= max(points, 2)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert set(zip(x, y, strict=True)) <= set(zip(curve.false_positive_rate, curve.true_positive_rate, strict=True))


def test_the_example_of_scikit_learn() -> None:
    """sklearn.metrics.roc_curve and roc_auc_score of the example in their documentation."""
    curve = roc_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    assert curve is not None
    assert curve.area == 0.75
    assert curve.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.true_positive_rate.tolist() == [0, 0.5, 0.5, 1, 1]


def test_a_class_that_the_split_lacks_has_no_curve_and_the_mean_leaves_it_out() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    curves = roc_by_class(softmax(rng.normal(size=(60, 3)) + 2 * np.eye(3)[labels]), labels)
    assert curves[2] is None
    macro = macro_curve(curves)
    assert macro is not None
    assert macro.area == pytest.approx((curves[0].area + curves[1].area) / 2)
    drawn = float(np.trapezoid(macro.true_positive_rate, macro.false_positive_rate))
    assert drawn == pytest.approx(macro.area, abs=0.01)
    assert macro_curve([None, None]) is None


def test_the_surest_mistakes_come_first() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.0, 0.2, 0.8], [0.05, 0.95, 0.0]])
    labels = np.array([1, 1, 2, 1, 0])
    assert surest_mistakes(probabilities, labels).tolist() == [4, 0, 3, 2]
    assert surest_mistakes(probabilities, labels, label=1).tolist() == [0, 3]
    assert surest_mistakes(probabilities, labels, label=1, predicted=2).tolist() == [3]
    assert surest_mistakes(probabilities, labels, predicted=2, label=0).tolist() == []
