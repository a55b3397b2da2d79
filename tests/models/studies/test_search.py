"""What a search does next from its trials so far: the same trials, the same answer, in any process."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from models.curves.metrics import EpochMetrics
from models.spec.search import SearchSpec
from models.studies.search import (
    Ending,
    Trial,
    best_so_far,
    best_trial,
    importances,
    next_params,
    num_startup,
    rungs_of,
    why_stop,
)

SPACE = {"optimizer.lr": {"log": [1e-4, 1e-1]}, "batch_size": [16, 32, 64]}


def search(space: Any = SPACE, **others: Any) -> SearchSpec:
    return SearchSpec.model_validate_json(json.dumps({"space": space, **others}))


def always(_: Mapping[str, Any]) -> bool:
    return True


def ended(number: int, params: dict[str, Any], value: float, epochs: int = 1) -> Trial:
    return Trial(number, params, Ending.COMPLETE, dict.fromkeys(range(1, epochs + 1), value))


def run(spec: SearchSpec, score: Callable[[dict[str, Any]], float], trials: int) -> list[Trial]:
    """What a search without a lab comes to: one trial after the other."""
    found: list[Trial] = []
    while len(found) < trials and (params := next_params(spec, found, always)) is not None:
        found.append(ended(len(found), params, score(params)))
    return found


def near_a_hundredth(params: dict[str, Any]) -> float:
    return 1 / (1 + abs(params["optimizer.lr"] - 0.01) * 100)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_trials_give_the_same_next_one(sampler: str) -> None:
    spec = search(sampler=sampler, trials=12, seed=3)
    first, second = run(spec, near_a_hundredth, 12), run(spec, near_a_hundredth, 12)
    assert first == second
    assert len({json.dumps(trial.params) for trial in first}) == 12
    assert all(1e-4 <= trial.params["optimizer.lr"] <= 1e-1 for trial in first)
    other = search(sampler=sampler, trials=12, seed=4)
    assert run(other, near_a_hundredth, 3) != first[:3]


def test_another_process_draws_the_same_trial() -> None:
    spec = search(trials=12)
    trials = run(spec, near_a_hundredth, 6)
    code = (
        "import json, sys\n"
        "from tests.models.studies.test_search import always, ended, next_params, search\n"
        "told = json.load(sys.stdin)\n"
        "trials = [ended(number, params, value) for number, params, value in told]\n"
        "print(json.dumps(next_params(search(trials=12), trials, always)))"
    )
    told = json.dumps([(trial.number, trial.params, trial.value) for trial in trials])
    result = subprocess.run([sys.executable, "-c", code], input=told, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == next_params(spec, trials, always)


def test_trials_that_run_are_taken_into_account() -> None:
    spec = search({"optimizer.lr": [0.1, 0.01]}, trials=2)
    running = Trial(0, {"optimizer.lr": 0.1}, Ending.WAITING)
    assert next_params(spec, [running], always) == {"optimizer.lr": 0.01}


def test_tpe_comes_closer_than_chance_once_it_has_trials_to_go_by() -> None:
    def mean_of_later(sampler: str) -> float:
        found = run(search({"optimizer.lr": SPACE["optimizer.lr"]}, sampler=sampler, trials=30), near_a_hundredth, 30)
        return sum(trial.value or 0.0 for trial in found[15:]) / 15

    assert mean_of_later("tpe") > mean_of_later("random") + 0.1


def test_a_third_of_the_trials_is_drawn_at_random_first() -> None:
    assert [num_startup(trials) for trials in (1, 6, 12, 30, 200)] == [3, 3, 4, 10, 10]


@pytest.mark.parametrize("sampler", ["grid", "tpe", "random"])
def test_a_finite_space_is_gone_through_once_and_then_there_is_none_left(sampler: str) -> None:
    space = {"optimizer.lr": [0.1, 0.01], "batch_size": {"int": [16, 48], "step": 16}, "sampler": ["shuffle"]}
    found = run(search(space, sampler=sampler), lambda params: params["batch_size"] / 100, 50)
    assert sorted((t.params["optimizer.lr"], t.params["batch_size"]) for t in found) == [
        (lr, batch) for lr in (0.01, 0.1) for batch in (16, 32, 48)
    ]


def test_a_trial_whose_spec_cannot_be_run_is_drawn_anew() -> None:
    def can_run(params: Mapping[str, Any]) -> bool:
        return bool(params["batch_size"] == 64)

    spec = search(trials=8)
    found: list[Trial] = []
    for number in range(8):
        params = next_params(spec, found, can_run)
        assert params is not None
        assert params["batch_size"] == 64
        found.append(ended(number, params, 0.5))
    assert next_params(spec, found, lambda params: False) is None


def test_values_of_a_choice_may_be_anything_and_1_is_not_true() -> None:
    space = {"model": [{"name": "cnn", "blocks": [1]}, None, 1, True, 1.0, "1"]}
    found = run(search(space, trials=6), lambda params: 0.5, 6)
    assert sorted(json.dumps(trial.params["model"]) for trial in found) == sorted(map(json.dumps, space["model"]))
    assert next_params(search(space, trials=6), found[:3], always) is not None


def test_numbers_are_drawn_with_the_steps_and_the_whole_range() -> None:
    space = {"a": {"uniform": [0, 0.9], "step": 0.1}, "b": {"int": [1, 100], "log": True}, "c": {"int": [0, 3]}}
    found = run(search(space, sampler="random", trials=60), lambda params: 0.5, 60)
    assert {trial.params["a"] for trial in found} == {round(0.1 * step, 1) for step in range(10)}
    assert {trial.params["c"] for trial in found} == {0, 1, 2, 3}
    small = sum(trial.params["b"] <= 10 for trial in found)
    assert 20 <= small <= 40  # half of a log scale
    assert all(isinstance(trial.params["b"], int) for trial in found)


# values and the best trial


def history(*accuracies: float) -> list[EpochMetrics]:
    return [EpochMetrics(n, 1.0, 0.5, 1.0, value, 0.1, 1.0, 1.0, 1.0, 1.0) for n, value in enumerate(accuracies, 1)]


def test_a_trial_s_value_at_an_epoch_is_its_best_until_then() -> None:
    assert best_so_far(history(0.3, 0.2, 0.5)) == {1: 0.3, 2: 0.3, 3: 0.5}
    assert best_so_far(history(float("nan"), 0.2)) == {2: 0.2}
    assert best_so_far([]) == {}


def test_the_best_trial_was_run_in_full_and_did_not_diverge() -> None:
    trials = [
        ended(0, {}, 0.4),
        Trial(1, {}, Ending.PRUNED, {1: 0.9}),
        Trial(2, {}, Ending.COMPLETE, {1: 0.8}, diverged=True),
        Trial(3, {}, Ending.FAILED, {1: 0.9}),
        Trial(4, {}, Ending.WAITING, {1: 0.9}),
        ended(5, {}, 0.6),
        ended(6, {}, 0.6),
    ]
    assert best_trial(trials) == trials[5]
    assert best_trial(trials[1:5]) is None
    assert trials[2].value == 0.0
    assert trials[3].value is None


def test_tpe_turns_away_from_where_trials_diverge() -> None:
    spec = search({"optimizer.lr": SPACE["optimizer.lr"]}, trials=30)
    trials = [ended(n, {"optimizer.lr": 0.001 * (n + 1)}, 0.4 + n / 100) for n in range(5)]
    trials += [
        Trial(n, {"optimizer.lr": 0.05 + n / 1000}, Ending.COMPLETE, {1: 0.1}, diverged=True) for n in range(5, 15)
    ]
    drawn = [next_params(search(SPACE | {"batch_size": [16]}, trials=30, seed=seed), [
        Trial(t.number, {**t.params, "batch_size": 16}, t.ending, t.values, t.diverged) for t in trials
    ], always) for seed in range(8)]  # fmt: skip
    assert spec.trials == 30
    assert sum(params is not None and params["optimizer.lr"] < 0.03 for params in drawn) >= 6


# trials to end early


def curves(*rows: list[float], running: list[float], failed: bool = False) -> tuple[list[Trial], Trial]:
    trials = [Trial(n, {}, Ending.COMPLETE, dict(enumerate(row, 1))) for n, row in enumerate(rows)]
    last = Trial(len(rows), {}, Ending.WAITING, dict(enumerate(running, 1)))
    return [*trials, last], last


def test_the_median_pruner_ends_what_is_below_the_median_at_its_epoch() -> None:
    spec = search(pruner="median", trials=4)
    trials, slow = curves([0.3, 0.5, 0.6], [0.2, 0.4, 0.5], [0.4, 0.5, 0.6], running=[0.1, 0.2])
    why = why_stop(spec, trials, slow, epochs=3)
    assert why == "pruned: 20.0% after epoch 2 is below the median of 3 trials that ran in full, there"
    trials, quick = curves([0.3, 0.5, 0.6], [0.2, 0.4, 0.5], running=[0.3, 0.45])
    assert why_stop(spec, trials, quick, epochs=3) is None


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_nothing_is_ended_before_there_is_something_to_compare_with_or_in_its_last_epoch(pruner: str) -> None:
    spec = search(pruner=pruner, trials=4)
    trials, alone = curves(running=[0.1])
    assert why_stop(spec, trials, alone, epochs=9) is None
    trials, no_epoch = curves([0.5, 0.6], running=[])
    assert why_stop(spec, trials, no_epoch, epochs=9) is None
    trials, at_the_end = curves([0.5] * 3, [0.6] * 3, [0.6] * 3, running=[0.1, 0.1, 0.1])
    assert why_stop(spec, trials, at_the_end, epochs=3) is None
    assert why_stop(search(trials=4), trials, at_the_end, epochs=9) is None


def test_the_median_waits_for_a_quarter_of_the_trials() -> None:
    trials, slow = curves([0.5, 0.6], [0.5, 0.6], running=[0.1])
    assert why_stop(search(pruner="median", trials=8), trials, slow, epochs=9) is not None
    assert why_stop(search(pruner="median", trials=12), trials, slow, epochs=9) is None


def test_a_small_grid_that_names_no_number_of_trials_is_pruned_after_its_first() -> None:
    spec = search({"optimizer.lr": [0.1, 0.01, 0.001]}, sampler="grid", pruner="median")
    trials, slow = curves([0.5, 0.6], running=[0.1])
    assert why_stop(spec, trials, slow, epochs=9) is not None


def test_successive_halving_ends_all_but_the_best_third_at_a_rung() -> None:
    assert rungs_of(30) == [3, 9, 27]
    assert rungs_of(3) == [1]
    spec = search(pruner="asha", trials=30)
    at_rung = [[0.1, 0.2, 0.30], [0.1, 0.2, 0.40], [0.1, 0.2, 0.50], [0.1, 0.2, 0.60], [0.1, 0.2, 0.70]]
    trials, middle = curves(*at_rung, running=[0.1, 0.2, 0.55, 0.8])
    why = why_stop(spec, trials, middle, epochs=30)
    assert why == "pruned: 55.0% after epoch 3 is not among the best third of 6 trials that reached it"
    trials, good = curves(*at_rung, running=[0.1, 0.2, 0.65])
    assert why_stop(spec, trials, good, epochs=30) is None
    trials, early = curves(*at_rung, running=[0.1, 0.2])
    assert why_stop(spec, trials, early, epochs=30) is None


def test_a_rung_is_judged_once_so_that_later_trials_do_not_end_earlier_ones() -> None:
    trials, middle = curves([0.1, 0.1, 0.7], [0.1, 0.1, 0.8], running=[0.1, 0.1, 0.5, 0.5])
    spec = search(pruner="asha", trials=30)
    assert why_stop(spec, trials, middle, epochs=30) is not None
    assert why_stop(spec, trials, middle, epochs=30, judged_at=3) is None


# which fields matter


def test_the_field_that_decides_has_most_of_the_importance() -> None:
    spec = search(sampler="random", trials=30)
    found = importances(spec, run(spec, near_a_hundredth, 30))
    assert found is not None
    assert next(iter(found)) == "optimizer.lr"
    assert found["optimizer.lr"] > 0.7
    assert sum(found.values()) == pytest.approx(1)


def test_nothing_is_said_of_importance_where_little_is_known() -> None:
    spec = search(sampler="random")
    assert importances(spec, run(spec, near_a_hundredth, 3)) is None
    assert importances(spec, run(spec, lambda params: 0.5, 10)) is None
    assert importances(spec, []) is None


def test_trials_that_were_ended_early_or_diverged_count_for_importance() -> None:
    spec = search({"optimizer.lr": SPACE["optimizer.lr"], "batch_size": [16, 32]})
    rates = [10 ** (-4 + 3 * n / 19) for n in range(20)]
    trials = [
        Trial(
            n,
            {"optimizer.lr": round(rate, 8), "batch_size": 16 if n % 2 else 32},
            Ending.PRUNED if rate < 1e-3 else Ending.COMPLETE,
            {1: 0.2 if rate < 1e-3 else 0.5 + rate},
            diverged=rate > 0.05,
        )
        for n, rate in enumerate(rates)
    ]
    found = importances(spec, trials)
    assert found is not None
    assert found["optimizer.lr"] > found["batch_size"]
