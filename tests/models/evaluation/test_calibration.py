"""How far probabilities can be trusted: checked against definitions written out, and against brute force."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.calibration import (
    calibrate,
    energy,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from models.evaluation.probabilities import log_sum_exp, softmax
from models.evaluation.unknown import STATISTICS


def overconfident(num_images: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `factor` times those of the probabilities that the labels were drawn by."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(num_images, 5)) * 1.5
    labels = np.array([rng.choice(5, p=row) for row in softmax(honest)])
    return (honest * factor).astype(np.float32), labels


def likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    scaled = logits.astype(np.float64) / temperature
    return float((log_sum_exp(scaled) - scaled[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_the_logits_were_multiplied_by(factor: float) -> None:
    logits, labels = overconfident(20_000, factor)
    assert fit_temperature(logits, labels) == pytest.approx(factor, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 200), st.floats(0.1, 30))
def test_no_other_temperature_makes_the_labels_likelier(seed: int, num_images: int, factor: float) -> None:
    logits, labels = overconfident(num_images, factor, seed)
    found = fit_temperature(logits, labels)
    assert 0.05 - 1e-9 <= found <= 20 + 1e-9
    least = likelihood(logits, labels, found)
    for tried in np.geomspace(0.05, 20, 60):
        assert least <= likelihood(logits, labels, tried) + 1e-9


def test_a_perfect_network_and_one_that_knows_nothing_get_the_ends_of_the_range() -> None:
    labels = np.arange(300) % 3
    assert fit_temperature(np.eye(3)[labels] * 4, labels) == pytest.approx(0.05)
    wrong = np.eye(3)[(labels + 1) % 3] * 4
    assert fit_temperature(wrong, labels) == pytest.approx(20)


def test_the_error_is_the_mean_distance_of_confidence_and_accuracy_over_fifteen_bins() -> None:
    rng = np.random.default_rng(1)
    probabilities, labels = softmax(rng.normal(size=(500, 3)) * 2), rng.integers(0, 3, 500)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        chosen = (confidence > low) & (confidence <= low + 1 / 15)
        if chosen.any():
            expected += chosen.mean() * abs(correct[chosen].mean() - confidence[chosen].mean())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)
    assert sum(one.num_images for one in reliability(probabilities, labels)) == 500


def test_a_network_that_is_always_certain_and_half_the_time_right_is_half_wrong() -> None:
    certain = np.tile([1.0, 0.0], (10, 1))
    assert expected_calibration_error(certain, np.arange(10) % 2) == pytest.approx(0.5)


def test_calibration_lowers_the_error_of_an_overconfident_network_and_keeps_its_answers() -> None:
    logits, labels = overconfident(5000, 4.0)
    found = calibrate(logits, labels)
    assert found is not None
    assert found.error > 0.1 > 0.03 > found.calibrated_error
    assert found.confidence > found.accuracy
    assert found.num_images == 5000


def test_too_few_images_are_not_fitted() -> None:
    assert calibrate(*overconfident(99, 2.0)) is None
    assert calibrate(*overconfident(100, 2.0)) is not None


def test_energy_is_the_negative_log_of_the_sum_of_the_exponentials_without_overflow() -> None:
    assert energy(np.log([[1.0, 2.0, 5.0]])) == pytest.approx(-np.log(8))
    assert energy(np.array([[1000.0, 1000.0]])) == pytest.approx(-1000 - np.log(2))


def test_a_score_of_unknown_images_is_fitted_where_their_statistics_are_given() -> None:
    logits, labels = overconfident(200, 1.0)
    without = calibrate(logits, labels)
    statistics = np.random.default_rng(0).normal(size=(200, STATISTICS))
    found = calibrate(logits, labels, statistics)
    assert found is not None
    assert found.unknown is not None
    assert (found.unknown.score(statistics, energy(logits)) <= found.unknown.threshold).mean() == 0.95
    assert replace(found, unknown=None) == without
