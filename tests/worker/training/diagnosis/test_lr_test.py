"""The learning-rate test: how a sweep spends its time, when it ends, and what it suggests."""

import itertools
import json
import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from models.data.dataset import ImageDataset, load_dataset
from models.settings import Settings
from models.spec.parse import parse_spec
from tests.worker.training.tiny import images, spec
from worker.training.diagnosis.lr_test import Plan, Sweep, learning_rate_test, make_plan, smooth, suggest, sweep_rates

RATES = np.geomspace(1e-6, 10, 100)


def landscape(edge: float, *, noise: float = 0.0, seed: int = 0, cap: float = 1e30) -> Callable[[float], float]:
    """A loss that falls while the rate is useful, and grows by a factor a step once it is beyond the edge."""
    rng = np.random.default_rng(seed)
    loss = [2.3]

    def train_step(rate: float) -> float:
        now = loss[0] * math.exp(noise * rng.standard_normal())
        if rate < edge:
            loss[0] -= 0.12 * (loss[0] - 0.8) * min(1.0, 4 * rate / edge)
        else:
            loss[0] = min(loss[0] * (1 + 0.3 * rate / edge), cap)
        return now

    return train_step


@pytest.mark.parametrize("edge", [1e-4, 1e-2, 0.5])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_suggestion_lies_3_to_10_times_below_the_edge(edge: float, noise: float) -> None:
    for seed in range(5):
        sweep = sweep_rates(landscape(edge, noise=noise, seed=seed), RATES)
        found = suggest(sweep)
        assert found.lr is not None
        assert edge / 13 <= found.lr <= edge / 3
        assert "times below" in found.why


def test_a_sweep_ends_when_the_loss_is_four_times_its_lowest() -> None:
    sweep = sweep_rates(landscape(0.01), RATES)
    assert sweep.diverged_at is not None
    assert 0.01 <= sweep.diverged_at < 0.1
    assert len(sweep.rates) == len(sweep.losses) < len(RATES)


def test_a_sweep_ends_at_the_first_loss_that_is_not_finite() -> None:
    losses = iter([2.3] * 40 + [math.inf] + [1.0] * 100)
    sweep = sweep_rates(lambda rate: next(losses), RATES)
    assert len(sweep.rates) == 41
    assert sweep.diverged_at == pytest.approx(RATES[40])


def test_a_loss_that_never_rises_again_gets_the_rate_of_the_steepest_fall() -> None:
    places = np.log10(RATES)
    losses = 2.3 - 1.5 / (1 + np.exp(-4 * (places + 2)))
    found = suggest(Sweep(RATES, losses, None))
    assert found.lr == pytest.approx(1e-2, rel=0.3)
    assert "steepest" in found.why


def test_a_sweep_too_short_for_the_loss_to_fall_still_finds_the_edge() -> None:
    losses = np.where(RATES < 0.03, 2.3, 2.3 * (RATES / 0.03) ** 0.5)
    found = suggest(Sweep(RATES, losses, None))
    assert found.lr is not None
    assert 0.03 / 30 <= found.lr <= 0.05 / 30


def test_losses_that_never_move_or_never_were_finite_give_no_rate() -> None:
    assert suggest(Sweep(RATES, np.full(100, 2.3), None)).lr is None
    assert suggest(Sweep(RATES[:1], np.array([np.nan]), 1e-6)).lr is None


def test_smoothing_keeps_a_straight_line_and_calms_noise() -> None:
    line = np.linspace(2, 1, 100)
    assert smooth(RATES, line)[20:80] == pytest.approx(line[20:80], abs=1e-6)
    noisy = 2 + 0.1 * np.random.default_rng(0).standard_normal(100)
    assert smooth(RATES, noisy).std() < 0.06


@pytest.mark.parametrize(
    ("batch_size", "seconds_a_step", "plan"),
    [
        (16, 0.005, Plan(100, 8, 16)),
        (128, 0.02, Plan(100, 1, 128)),
        (16, 0.05, Plan(100, 8, 16)),
        (128, 0.4, Plan(45, 1, 128)),
        (128, 1.2, Plan(30, 1, 64)),
        (128, 60.0, Plan(30, 1, 16)),
        (8, 60.0, Plan(30, 1, 8)),
    ],
)
def test_a_slow_network_is_swept_at_fewer_rates_then_on_fewer_images(
    batch_size: int, seconds_a_step: float, plan: Plan
) -> None:
    assert make_plan(100, batch_size, seconds_a_step, seconds=18.0) == plan


def test_each_rate_gets_as_many_steps_as_its_time_allows() -> None:
    calls: list[float] = []

    def train_step(rate: float) -> float:
        calls.append(rate)
        return 2.3

    sweep_rates(train_step, RATES, steps_a_rate=8, seconds=1e9)
    assert len(calls) == 800
    calls.clear()
    sweep_rates(train_step, RATES[:5], steps_a_rate=8, seconds=0.0)
    assert len(calls) == 5


def test_a_sweep_behind_its_time_leaves_rates_out_to_reach_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def train_step(rate: float) -> float:
        now[0] += 0.5
        return 2.3

    sweep = sweep_rates(train_step, RATES, steps_a_rate=8, seconds=18.0)
    assert sweep.complete
    assert 30 <= len(sweep.rates) < 100
    assert sweep.rates[-1] > RATES[-4]


def test_time_that_is_up_ends_a_sweep_and_is_said() -> None:
    steps = itertools.count()
    sweep = sweep_rates(lambda rate: 2.3 - 0.01 * next(steps), RATES, seconds=0.0)
    assert not sweep.complete
    assert len(sweep.rates) == 5
    assert "the time ended" in suggest(sweep).why


@pytest.fixture(scope="module")
def dataset(cache_dir: object) -> ImageDataset:
    """Real images."""
    return load_dataset("cifar10", Settings())


def test_a_real_network_gets_a_rate_that_people_use(dataset: ImageDataset) -> None:
    narrow = parse_spec({"model": "narrow", "batch_size": 64, "dataset": {"train_limit": 2000, "val_limit": 100}})
    found = learning_rate_test(narrow, dataset, lr_min=1e-5, lr_max=3.0, steps=40, device="cpu", seconds=60)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [set(point) for point in found["points"]] == [{"lr", "loss", "smoothed"}] * len(found["points"])
    assert 0.001 <= found["suggestion"]["lr"] <= 0.1, found["suggestion"]


def test_the_test_runs_on_one_rate_after_another_from_the_same_start_each_time() -> None:
    first, second = (
        learning_rate_test(spec(), images(), lr_min=1e-5, lr_max=1.0, steps=10, device="cpu", seconds=1e6)
        for _ in range(2)
    )
    assert first["points"][0]["lr"] == pytest.approx(1e-5)
    assert first["num_steps"] == second["num_steps"]
    assert [point["loss"] for point in first["points"]] == [point["loss"] for point in second["points"]]
