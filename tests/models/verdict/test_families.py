"""How often the verdict is wrong on synthetic histories of known kind (families.py).

docs/verdicts.md has the rates over 400 histories of each family; here are fewer of them, with bounds that leave room.
"""

from collections import Counter

import numpy as np
import pytest

from tests.models.verdict.families import FAMILIES, Case
from tests.models.verdict.histories import make_history, verdict_on

SEEDS = range(1000, 1010)


def codes_of(case: Case) -> dict[str, list[int]]:
    verdict = verdict_on(case.history, num_classes=case.num_classes)
    return {finding.code: finding.epochs for finding in verdict.findings}


@pytest.fixture(scope="module")
def judged() -> dict[str, list[tuple[Case, dict[str, list[int]]]]]:
    cases = {name: [make(seed) for seed in SEEDS] for name, make in FAMILIES.items()}
    return {name: [(case, codes_of(case)) for case in many] for name, many in cases.items()}


def test_what_is_there_is_found(judged: dict[str, list[tuple[Case, dict[str, list[int]]]]]) -> None:
    missed: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for name, cases in judged.items():
        for case, codes in cases:
            for wanted in case.must:
                asked[wanted] += 1
                missed[f"{wanted} in {name}"] += not any(code in codes for code in wanted.split("|"))
    assert sum(missed.values()) <= 0.02 * sum(asked.values()), +missed


def test_what_is_not_there_is_not_found(judged: dict[str, list[tuple[Case, dict[str, list[int]]]]]) -> None:
    wrong: Counter[str] = Counter()
    asked = 0
    for name, cases in judged.items():
        for case, codes in cases:
            asked += len(case.must_not)
            wrong.update(f"{code} in {name}" for code in case.must_not & set(codes))
    assert sum(wrong.values()) <= 0.01 * asked, +wrong


def test_overfitting_is_seldom_seen_in_curves_that_level_off(
    judged: dict[str, list[tuple[Case, dict[str, list[int]]]]],
) -> None:
    level = [codes for name in ("clean", "noisy_plateau", "schedule_steps") for _, codes in judged[name]]
    assert np.mean(["overfitting" in codes for codes in level]) <= 0.07


@pytest.mark.parametrize(
    ("family", "code", "reach"), [("late_overfit", "overfitting", 0.12), ("collapse", "collapse", 0.1)]
)
def test_where_it_begins_is_found_to_within_a_tenth_of_the_run(
    judged: dict[str, list[tuple[Case, dict[str, list[int]]]]], family: str, code: str, reach: float
) -> None:
    off = [
        abs(codes[code][0] - case.begins) / len(case.history)
        for case, codes in judged[family]
        if code in codes and case.begins
    ]
    assert np.quantile(off, 0.9) <= reach


def test_a_thousand_epochs_are_judged_like_fifty() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(1000.0)
    level = 1 + 1.3 * np.exp(-t / 60) + rng.normal(0, 0.02, 1000)
    rising = level + 0.2 * np.maximum(t - 500, 0) / 500
    accuracy = (0.7 - 0.6 * np.exp(-t / 60) + rng.normal(0, 0.01, 1000)).tolist()
    train = (1 + 1.2 * np.exp(-t / 60) - 0.5 * t / 1000).tolist()

    calm = {f.code for f in verdict_on(make_history(level.tolist(), accuracy, train)).findings}
    over = {f.code for f in verdict_on(make_history(rising.tolist(), accuracy, train)).findings}
    assert "overfitting" in over
    assert "overfitting" not in calm
    assert "still-improving" not in calm | over
