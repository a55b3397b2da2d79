"""The stability figure, and which of two histories is the more stable."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from models.curves.metrics import EpochMetrics
from models.curves.stability import compare_stability, measure_stability


def run(wobble: float, seed: int = 0, epochs: int = 40, end: float = 0.7) -> list[EpochMetrics]:
    """Converges to an accuracy of 0.7 with this wobble; falls to `end` in the last quarter."""
    rng = np.random.default_rng(seed)
    t = np.arange(epochs)
    accuracy = 0.7 - 0.6 * np.exp(-t / 4) + rng.normal(0, wobble, epochs)
    accuracy = accuracy - (0.7 - end) * np.clip((t - 0.75 * epochs) / (0.1 * epochs), 0, 1)
    loss = (1 + 1.3 * np.exp(-t / 4)) * (1 + rng.normal(0, 2 * wobble, epochs))
    nan = math.nan
    return [
        EpochMetrics(i + 1, nan, nan, float(loss[i]), float(accuracy[i]), 0.1, None, 1.0, 1.0, 1.0)
        for i in range(epochs)
    ]


def score(history: list[EpochMetrics]) -> float:
    found = measure_stability(history, 10)
    assert found is not None
    return found.score


def test_a_smooth_curve_scores_one_and_more_wobble_less() -> None:
    scores = [score(run(wobble)) for wobble in (0, 0.005, 0.02, 0.08)]
    assert scores[0] == pytest.approx(1, abs=0.02)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.4


def test_the_length_of_a_run_hardly_matters() -> None:
    short = np.mean([score(run(0.01, seed, epochs=25)) for seed in range(10)])
    long = np.mean([score(run(0.01, seed, epochs=200)) for seed in range(10)])
    assert short == pytest.approx(long, abs=0.12)


def test_a_collapse_takes_its_part_away() -> None:
    calm = measure_stability(run(0.005, end=0.4), 10)
    assert calm is not None
    assert calm.kept == pytest.approx(0.5, abs=0.05)


def test_an_end_that_is_not_finite_scores_nothing() -> None:
    history = run(0.005)
    history[-1] = replace(history[-1], val_loss=math.nan, val_accuracy=0.1)
    assert score(history) == 0


def compared(first: list[EpochMetrics], second: list[EpochMetrics]) -> dict:
    """The comparison of two histories over ten classes."""
    return compare_stability(measure_stability(first, 10), measure_stability(second, 10))


def test_three_epochs_have_no_stability() -> None:
    assert measure_stability(run(0.01)[:3], 10) is None
    found = compared(run(0.01)[:3], run(0.01))
    assert found["more_stable"] is None
    assert found["sentence"].startswith("The first has fewer than four epochs")


def test_the_calmer_of_two_is_found_whichever_comes_first() -> None:
    assert compared(run(0.005), run(0.02, 1))["more_stable"] == 0
    assert compared(run(0.02), run(0.005, 1))["more_stable"] == 1


def test_the_same_wobble_is_seldom_called_different() -> None:
    called = [compared(run(0.01, seed), run(0.01, 100 + seed))["more_stable"] for seed in range(40)]
    assert sum(name is not None for name in called) <= 6


def test_the_comparison_is_json_with_a_sentence() -> None:
    found = compared(run(0.005), run(0.02, 1))
    json.dumps(found, allow_nan=False)
    assert found["sentence"].startswith("The first is the more stable: stability ")
