"""Shapes, noise, and how sure a rise or a trend is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.curves.statistics import (
    clip_spikes,
    estimate_noise,
    falling_fit,
    fit_trend,
    fit_valley,
    locate_bottom,
    measure_rise,
    student_tail,
    typical_wobble,
)

numbers = st.lists(st.floats(min_value=-1e3, max_value=1e3), min_size=1, max_size=40)


@given(numbers)
def test_the_falling_fit_falls_and_keeps_the_mean(values: list[float]) -> None:
    fit = falling_fit(np.array(values))
    assert (np.diff(fit) <= 1e-9).all()
    assert fit.mean() == pytest.approx(np.mean(values), abs=1e-6)


@given(numbers)
def test_the_valley_is_the_best_split_into_a_fall_and_a_rise(values: list[float]) -> None:
    array = np.array(values)
    error = float(((array - fit_valley(array).fit) ** 2).sum())
    tried = []
    for split in range(len(array)):
        fall, rise = falling_fit(array[: split + 1]), falling_fit(array[split + 1 :][::-1])[::-1]
        tried.append(float(((array - np.concatenate([fall, rise])) ** 2).sum()))
    assert error == pytest.approx(min(tried), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 0.1])
@pytest.mark.parametrize("length", [40, 200])
def test_the_noise_of_a_decaying_curve_is_found_within_a_third(sigma: float, length: int) -> None:
    t = np.arange(length)
    found = [
        estimate_noise(1 + 5 * np.exp(-t / 8) + np.random.default_rng(seed).normal(0, sigma, length)).typical
        for seed in range(10)
    ]
    assert np.median(found) == pytest.approx(sigma, rel=0.33)


def test_noise_that_carries_over_is_told_from_noise_that_does_not() -> None:
    rng = np.random.default_rng(0)
    white, carried = rng.normal(size=(2, 300))
    for i in range(1, 300):
        carried[i] = 0.7 * carried[i - 1] + math.sqrt(1 - 0.49) * carried[i]
    assert estimate_noise(white).correlation < 0.15
    assert estimate_noise(carried).correlation == pytest.approx(0.7, abs=0.15)


def test_a_smooth_curve_has_next_to_no_wobble_however_steep() -> None:
    assert typical_wobble(40 * np.exp(-np.arange(50) / 3.0) + 2) < 0.005


@pytest.mark.parametrize("length", [6, 10, 20, 60, 200])
def test_level_noise_is_seldom_taken_for_a_rise(length: int) -> None:
    confident = [
        measure_rise(1 + 0.03 * np.random.default_rng(seed).standard_normal(length)).confidence >= 0.975
        for seed in range(100)
    ]
    assert np.mean(confident) <= 0.08


@pytest.mark.parametrize("length", [10, 30, 100])
def test_a_rise_of_ten_sigmas_is_mostly_found(length: int) -> None:
    t = np.arange(length)
    curve = 1 + np.exp(-t / (length / 8)) + 0.2 * np.maximum(t - length / 2, 0) / (length / 2)
    found = [
        measure_rise(curve + 0.02 * np.random.default_rng(seed).standard_normal(length)).confidence >= 0.975
        for seed in range(20)
    ]
    assert np.mean(found) >= 0.8


def test_one_spike_is_no_rise() -> None:
    curve = np.full(30, 1.0) + np.random.default_rng(1).normal(0, 0.01, 30)
    curve[-3] = 9.0
    assert measure_rise(curve).confidence < 0.975
    assert clip_spikes(curve).max() < 1.5


def test_the_bottoms_range_holds_the_truth_and_narrows_with_the_noise() -> None:
    t = np.arange(60)
    curve = 1 + 0.002 * (t - 20) ** 2

    def span(sigma: float) -> tuple[int, int]:
        _, low, high = locate_bottom(curve + np.random.default_rng(2).normal(0, sigma, 60))
        return low, high

    for sigma in (0.02, 0.2):
        low, high = span(sigma)
        assert low <= 20 <= high
    assert np.diff(span(0.02))[0] < np.diff(span(0.2))[0]


def test_a_trend_is_as_sure_as_its_noise_allows() -> None:
    rng = np.random.default_rng(0)
    line = -0.01 * np.arange(12.0)
    assert fit_trend(line + rng.normal(0, 0.005, 12), 12).confidence_falling > 0.99
    assert fit_trend(rng.normal(0, 0.05, 12), 12).confidence_falling < 0.95
    assert fit_trend(line, 12).confidence_falling == pytest.approx(1)


@pytest.mark.parametrize(
    ("freedom", "t", "tail"), [(3, 3.182, 0.025), (5, 2.015, 0.05), (10, 2.764, 0.01), (100, 1.66, 0.05)]
)
def test_students_tail_is_the_tables(freedom: int, t: float, tail: float) -> None:
    assert student_tail(t, freedom) == pytest.approx(tail, abs=0.0002)
    assert student_tail(-t, freedom) == pytest.approx(1 - tail, abs=0.0002)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0, 1.0, 1.0], [0.0] * 10, [1e-300] * 8, [1e12] * 9])
def test_short_and_constant_curves_have_no_rise(values: list[float]) -> None:
    rise = measure_rise(np.array(values))
    assert rise.confidence == 0 or len(values) >= 4
    assert rise.confidence < 0.95
