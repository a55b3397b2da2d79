"""The score of images unlike the validation images: by definition, exact, and independent of what else is scored."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.unknown import (
    STATISTICS,
    UnknownScore,
    fit_unknown_score,
    image_statistics,
    threshold_keeping,
)

RNG = np.random.default_rng(0)
SEEN = RNG.normal(size=(400, STATISTICS)) @ (np.eye(STATISTICS) + 0.2 * RNG.normal(size=(STATISTICS, STATISTICS)))
ENERGIES = RNG.normal(size=400) * 3 - 7


def noise(count: int, channels: int = 3, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def test_the_score_is_the_sum_of_the_distance_and_of_the_energy_in_standard_deviations() -> None:
    found = fit_unknown_score(SEEN, ENERGIES, 0.95)
    centred = SEEN - SEEN.mean(axis=0)
    distances = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(np.cov(centred.T, bias=True)), centred)
    expected = (distances - distances.mean()) / distances.std() + (ENERGIES - ENERGIES.mean()) / ENERGIES.std()
    scores = found.score(SEEN, ENERGIES)
    assert np.corrcoef(scores, expected)[0, 1] > 0.99  # but for the shrinkage
    assert (scores <= found.threshold).mean() == 0.95
    assert found.score(SEEN + 100 * SEEN.std(axis=0), ENERGIES).min() > found.threshold
    assert found.score(SEEN, ENERGIES + 100 * ENERGIES.std()).min() > found.threshold
    assert found.score(SEEN, ENERGIES - 100 * ENERGIES.std()).max() < found.threshold, "that is a sure answer"


def test_numbers_that_never_vary_are_no_fault_and_any_other_value_of_them_is_far() -> None:
    same = np.zeros((200, STATISTICS))
    found = fit_unknown_score(same, np.zeros(200), 0.95)
    assert found.score(same[:1], np.zeros(1))[0] <= found.threshold == 0
    assert found.score(same[:1] + 1, np.zeros(1))[0] > 100


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_threshold_keeps_the_part_that_it_should_and_no_more(values: list[float], kept: float) -> None:
    scores = np.array(values)
    threshold = threshold_keeping(scores, kept)
    assert (scores <= threshold).mean() >= kept - 1e-12
    highest = scores[scores <= threshold].max()
    assert (scores < highest).sum() < kept * len(scores) + 1e-9


def test_rounding_on_another_processor_puts_no_validation_image_above_the_threshold() -> None:
    scores = np.random.default_rng(0).normal(size=600)
    known = scores <= threshold_keeping(scores, 0.95)
    for change in (1 + 1e-6, 1 - 1e-6):
        assert np.array_equal(scores * change <= threshold_keeping(scores, 0.95), known)
    assert threshold_keeping(np.array([4.0, 1, 2, 2, 3]), 0.5) == 2.5
    assert threshold_keeping(np.array([4.0, 1, 2]), 1) == 4, "none is higher"


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 8), (3, 1), (1, 2), (3, 33), (3, 100)])
def test_no_images_score_depends_on_the_others_to_the_bit(channels: int, side: int) -> None:
    images = noise(9, channels, side)
    together = image_statistics(images)
    assert together.shape == (9, STATISTICS)
    assert np.isfinite(together).all()
    for chosen in (np.s_[:1], np.s_[3:4], np.s_[2:7], np.s_[::2]):
        assert np.array_equal(image_statistics(images[chosen]), together[chosen])
    fitted = fit_unknown_score(SEEN, ENERGIES, 0.95)
    scores = fitted.score(together, ENERGIES[:9])
    assert np.array_equal(scores, [fitted.score(together[i : i + 1], ENERGIES[i : i + 1])[0] for i in range(9)])


def test_statistics_are_what_they_are_called() -> None:
    gray = np.full((1, 3, 32, 32), 51, np.uint8)
    brightness, contrast, colour, *roughness, black, white = image_statistics(gray)[0]
    assert (brightness, contrast, colour, roughness) == (0.2, 0, math.log(100), [0, 0, 0])
    assert black == white == math.log(0.01)
    stripes = gray.copy()
    stripes[:, :, :, ::2] = 255
    brightness, contrast, colour, fine, middle, coarse, black, white = image_statistics(stripes)[0]
    assert (brightness, contrast) == (0.6, pytest.approx(math.log(102**2 + 1)))
    assert (colour, middle, coarse) == (math.log(100), 0, 0), "stripes of a pixel are gone in cells of two"
    assert fine == pytest.approx(math.log(204**2 / 2 + 1))
    assert (black, white) == (math.log(0.01), math.log(0.51))
    red = gray.copy()
    red[:, 1:] = 0
    assert image_statistics(red)[0][2] == pytest.approx(math.log(51**2 / 2 + 100))


@pytest.mark.parametrize(
    "changes",
    [
        {"means": (0.0,)},
        {"threshold": "x"},
        {"energy": 3},
        {"distance": {"mean": 0, "deviation": 0}},
        {"scales": (math.inf,) * STATISTICS},
    ],
)
def test_what_was_stored_is_read_and_anything_else_refused(changes: dict[str, object]) -> None:
    fitted = fit_unknown_score(SEEN, ENERGIES, 0.95)
    assert UnknownScore.from_json(asdict(fitted)) == fitted
    with pytest.raises((ValueError, KeyError, TypeError)):
        UnknownScore.from_json({**asdict(fitted), **changes})
