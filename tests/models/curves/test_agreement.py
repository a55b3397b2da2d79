"""Two histories agree to the bit, within noise, or not."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from models.curves.agreement import Agreement, agreement
from models.curves.metrics import EpochMetrics
from tests.texts import faults_of


def run(seed: int, *, epochs: int = 30, top: float = 0.7, wobble: float = 0.008) -> list[EpochMetrics]:
    """A run that converges to `top`, with a wobble of its own."""
    rng = np.random.default_rng(seed)
    t = np.arange(1, epochs + 1)
    left = np.exp(-t / 4)
    accuracy = top - 0.6 * left + wobble * rng.standard_normal(epochs)
    loss = 3 * (1 - top) + 1.4 * left + 2 * wobble * rng.standard_normal(epochs)
    return [
        EpochMetrics(
            epoch=i + 1,
            train_loss=float(loss[i] * 0.9),
            train_accuracy=float(accuracy[i] + 0.02),
            val_loss=float(loss[i]),
            val_accuracy=float(accuracy[i]),
            lr=0.01,
            grad_norm=1.0,
            seconds=float(rng.uniform(1, 2)),
            images_per_second=1000.0,
            peak_memory_mb=float(rng.uniform(100, 200)),
        )
        for i in range(epochs)
    ]


def test_the_same_numbers_are_bit_identical_though_they_took_another_time() -> None:
    first = run(0)
    second = [replace(metrics, seconds=9.0, peak_memory_mb=1.0, images_per_second=7.0) for metrics in first]
    found = agreement(first, second)
    assert found["agreement"] == Agreement.BIT_IDENTICAL
    assert found["first_difference"] is None
    assert found["series"]["val_loss"]["largest_difference"] == 0


def test_one_bit_in_one_epoch_is_noticed_and_is_noise() -> None:
    first = run(0)
    second = list(first)
    second[12] = replace(second[12], train_loss=math.nextafter(second[12].train_loss, 10))
    found = agreement(first, second)
    assert found["agreement"] == Agreement.WITHIN_NOISE
    assert found["first_difference"] == 13
    assert found["series"]["train_loss"]["at_epoch"] == 13


def test_another_seed_is_within_noise() -> None:
    wrong = [seed for seed in range(1, 60) if agreement(run(0), run(seed))["agreement"] != "within-noise"]
    assert len(wrong) <= 2


@pytest.mark.parametrize("top", [0.6, 0.8])
def test_a_run_that_ends_elsewhere_is_different(top: float) -> None:
    for seed in range(1, 20):
        found = agreement(run(0), run(seed, top=top))
        assert found["agreement"] == Agreement.DIFFERENT
        assert "chance explains" in found["sentence"]


def test_a_collapse_at_the_end_of_one_is_different() -> None:
    second = run(1)
    second[-8:] = [replace(metrics, val_accuracy=0.2, val_loss=2.2) for metrics in second[-8:]]
    assert agreement(run(0), second)["agreement"] == Agreement.DIFFERENT


def test_runs_of_different_length_are_different_and_what_they_share_is_compared() -> None:
    found = agreement(run(0), run(0)[:20])
    assert found["agreement"] == Agreement.DIFFERENT
    assert found["sentence"] == "One history has 30 epochs and the other 20."
    assert found["series"]["val_accuracy"]["largest_difference"] == 0


def test_missing_figures_on_both_sides_are_the_same() -> None:
    first = [replace(metrics, train_accuracy=math.nan, grad_norm=None) for metrics in run(0)]
    second = [replace(metrics, grad_norm=math.nan) for metrics in first]
    assert agreement(first, second)["agreement"] == Agreement.BIT_IDENTICAL


def test_only_one_of_them_diverging_is_different() -> None:
    second = [*run(0)[:-1], replace(run(0)[-1], train_loss=math.nan, val_loss=math.nan)]
    assert agreement(run(0), second)["agreement"] == Agreement.DIFFERENT
    assert agreement(second, list(second))["agreement"] == Agreement.BIT_IDENTICAL


@pytest.mark.parametrize(
    "pair", [([], []), (run(0, epochs=1), run(1, epochs=1)), (run(0), []), (run(0, epochs=2),) * 2]
)
def test_short_histories_are_compared_too_and_the_answer_is_json(
    pair: tuple[list[EpochMetrics], list[EpochMetrics]],
) -> None:
    json.dumps(agreement(*pair), allow_nan=False)


def counted(seed: int, *, images: int, epochs: int, top: float) -> list[EpochMetrics]:
    """A run measured on so few validation images, each of which it is right or wrong about."""
    measured = []
    for i, metrics in enumerate(run(seed, epochs=epochs, top=top, wobble=0.004)):
        right = np.random.default_rng((seed, i)).binomial(images, min(max(metrics.val_accuracy, 0.0), 1.0))
        measured.append(replace(metrics, val_accuracy=float(right) / images))
    return measured


@pytest.mark.parametrize("images", [40, 120, 1000])
@pytest.mark.parametrize("epochs", [6, 15, 40])
def test_few_images_make_no_difference_of_two_runs_of_one_spec(images: int, epochs: int) -> None:
    runs = [counted(seed, images=images, epochs=epochs, top=0.6) for seed in range(40)]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    assert sum(agreement(*pair)["agreement"] == Agreement.DIFFERENT for pair in pairs) <= 1


@pytest.mark.parametrize("images", [120, 1000])
@pytest.mark.parametrize("epochs", [10, 40])
def test_runs_that_end_far_apart_are_different_even_on_few_images(images: int, epochs: int) -> None:
    for n in range(10):
        first = counted(2 * n, images=images, epochs=epochs, top=0.6)
        second = counted(2 * n + 1, images=images, epochs=epochs, top=0.35)
        assert agreement(first, second)["agreement"] == Agreement.DIFFERENT


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5])
def test_too_few_epochs_to_tell_are_said_to_be_too_few(epochs: int) -> None:
    found = agreement(run(0, epochs=epochs, top=0.6), run(1, epochs=epochs, top=0.9))
    assert found["agreement"] == Agreement.TOO_FEW_EPOCHS
    assert "too few to tell" in found["sentence"]
    assert faults_of(found["sentence"]) == []


def test_few_epochs_that_agree_closely_or_to_the_bit_are_said_to() -> None:
    first = run(0, epochs=3)
    assert agreement(first, list(first))["agreement"] == Agreement.BIT_IDENTICAL
    second = [replace(metrics, val_loss=metrics.val_loss * 1.001) for metrics in first]
    assert agreement(first, second)["agreement"] == Agreement.WITHIN_NOISE
