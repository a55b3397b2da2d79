"""The confusion matrix and its figures, against counting one by one and against scikit-learn's figures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.confusion import class_figures, confusion_matrix, macro_average, most_confused

ANSWERS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=80)


@given(ANSWERS)
def test_figures_are_those_of_counting_one_by_one(answers: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(column) for column in zip(*answers, strict=True))
    matrix = confusion_matrix(labels, predicted, 5)
    for number, one in enumerate(class_figures(matrix)):
        hits = sum(pair == (number, number) for pair in answers)
        own = sum(label == number for label, _ in answers)
        taken = sum(answer == number for _, answer in answers)
        assert (one.num_images, one.num_predicted) == (own, taken)
        assert one.recall == (hits / own if own else None)
        assert one.precision == (hits / taken if taken else None)
        if one.precision and one.recall:
            assert one.f1 == pytest.approx(2 / (1 / one.precision + 1 / one.recall))
        assert matrix[number].sum() == own


def test_figures_of_scikit_learn() -> None:
    """sklearn.metrics 1.5: confusion_matrix and precision_recall_fscore_support of the same answers."""
    labels, predicted = np.array([0, 1, 2, 0, 1, 2, 2, 0]), np.array([0, 2, 1, 0, 0, 2, 2, 1])
    matrix = confusion_matrix(labels, predicted, 3)
    assert matrix.tolist() == [[2, 1, 0], [1, 0, 1], [0, 1, 2]]
    figures = class_figures(matrix)
    assert [one.precision for one in figures] == pytest.approx([2 / 3, 0, 2 / 3])
    assert [one.recall for one in figures] == pytest.approx([2 / 3, 0, 2 / 3])
    assert [one.f1 for one in figures] == pytest.approx([2 / 3, 0, 2 / 3])


def test_a_class_that_the_split_lacks_shifts_no_other_and_is_left_out_of_means() -> None:
    labels, predicted = np.array([0, 0, 3]), np.array([0, 3, 3])
    figures = class_figures(confusion_matrix(labels, predicted, 4))
    assert [one.recall for one in figures] == [0.5, None, None, 1.0]
    assert macro_average([one.recall for one in figures]) == 0.75
    assert macro_average([None]) is None


@given(ANSWERS)
def test_the_most_confused_pairs_come_first_and_none_is_left_out(answers: list[tuple[int, int]]) -> None:
    matrix = confusion_matrix(*(np.array(column) for column in zip(*answers, strict=True)), 5)
    pairs = most_confused(matrix, 100)
    assert [one.count for one in pairs] == sorted((one.count for one in pairs), reverse=True)
    assert sum(one.count for one in pairs) == sum(label != answer for label, answer in answers)
    assert all(one.label != one.predicted and 0 < one.share <= 1 for one in pairs)
    assert most_confused(matrix, 2) == pairs[:2]
