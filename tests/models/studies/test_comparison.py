"""Comparison of two rows: what is said of a difference, and how often chance alone is called one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.studies.comparison import (
    Difference,
    Judgement,
    Method,
    Score,
    binomial_p,
    compare,
    holm,
    quantile,
    seed_variance,
    spread_of,
)

NUM_IMAGES = 1000
SIMULATIONS = 200


def runs(
    rng: np.random.Generator, hardness: np.ndarray, seeds: int, *, skill: float = 0.0, seed_spread: float = 0.02
) -> list[Score]:
    """Networks of one way to train, measured on images that are hard for all of them alike."""
    made = []
    for seed in range(seeds):
        luck = skill + seed_spread * rng.standard_normal()
        correct = rng.random(len(hardness)) < np.clip(hardness + luck, 0, 1)
        made.append(Score(seed, float(correct.mean()), len(correct), correct, "split 0"))
    return made


def called(seeds: int, *, skill: float, seed_spread: float, simulations: int = SIMULATIONS) -> tuple[float, float]:
    """How often a row is called better, and worse, than a baseline that it is ahead of by `skill`."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(simulations):
        hardness = rng.beta(1.2, 0.8, NUM_IMAGES)
        row = runs(rng, hardness, seeds, skill=skill, seed_spread=seed_spread)
        difference = compare(row, runs(rng, hardness, seeds, seed_spread=seed_spread))
        assert difference is not None
        found.append(difference.judgement)
    return found.count(Judgement.BETTER) / simulations, found.count(Judgement.WORSE) / simulations


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_spread", [0.0, 0.005, 0.03])
def test_equal_rows_are_called_different_at_most_as_often_as_the_level_says(seeds: int, seed_spread: float) -> None:
    better, worse = called(seeds, skill=0.0, seed_spread=seed_spread)
    # 5% of 200 is 10; 18 or more come by chance once in a hundred times at exactly 5%
    assert better + worse <= 18 / SIMULATIONS


def test_two_single_runs_of_equal_rows_are_called_different_rarely_though_their_seeds_differ() -> None:
    better, worse = called(1, skill=0.0, seed_spread=0.005)
    assert better + worse <= 18 / SIMULATIONS


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_row_that_is_five_points_ahead_is_called_better(seeds: int) -> None:
    better, worse = called(seeds, skill=0.07, seed_spread=0.003, simulations=50)
    assert better > 0.8
    assert worse == 0


def test_the_interval_holds_the_true_difference_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(SIMULATIONS):
        hardness = rng.uniform(0.2, 0.8, NUM_IMAGES)  # a shift of five points is never cut off
        row, baseline = (runs(rng, hardness, 3, skill=skill, seed_spread=0.01) for skill in (0.05, 0.0))
        found = compare(row, baseline)
        assert found is not None
        inside += found.low <= 0.05 <= found.high
    assert inside / SIMULATIONS >= 0.91


def test_one_seed_is_tested_on_the_images_that_only_one_of_the_two_gets_right() -> None:
    one, other = np.zeros(100, bool), np.zeros(100, bool)
    one[:60], other[:40] = True, True
    found = compare([Score(0, 0.6, 100, one, "a")], [Score(0, 0.4, 100, other, "a")])
    assert found is not None
    assert found.method is Method.MCNEMAR
    assert found.value == pytest.approx(0.2)
    assert found.p_value == pytest.approx(2 / 2**20)  # twenty images gained, none lost
    assert found.low < 0.2 < found.high


def test_a_point_between_single_runs_is_noise_however_many_images_there_are() -> None:
    one, other = np.zeros(1_000_000, bool), np.zeros(1_000_000, bool)
    one[:510_000], other[:500_000] = True, True
    found = compare([Score(0, 0.51, 1_000_000, one, "a")], [Score(0, 0.5, 1_000_000, other, "a")])
    assert found is not None
    assert found.p_value < 1e-9
    assert found.judgement is Judgement.NOISE


def test_rows_on_different_images_are_compared_by_their_scores_alone() -> None:
    right = np.ones(100, bool)
    row = [Score(seed, value, 100, right, "a") for seed, value in enumerate((0.6, 0.61, 0.62))]
    baseline = [Score(seed, value, 100, right, "b") for seed, value in enumerate((0.5, 0.52, 0.51))]
    found, single = compare(row, baseline), compare(row[:1], baseline[:1])
    assert found is not None
    assert single is not None
    assert found.method is Method.SEEDS
    assert found.judgement is Judgement.BETTER
    assert single.method is Method.PROPORTIONS
    assert single.judgement is Judgement.NOISE  # a hundred images each tell ten points apart by chance


def test_without_a_score_there_is_no_difference() -> None:
    assert compare([], [Score(0, 0.5, 10)]) is None
    assert spread_of([]) is None


def test_many_comparisons_are_corrected_for_their_number_and_keep_their_order() -> None:
    def difference(p_value: float) -> Difference:
        return Difference(0.1, 0.01, 0.2, p_value, Method.SEEDS, 3)

    found = holm([difference(0.04), None, difference(0.001), difference(0.03)])
    assert [one and one.adjusted_p for one in found] == [
        pytest.approx(0.06),
        None,
        pytest.approx(0.003),
        pytest.approx(0.06),
    ]
    assert [one.judgement for one in found if one] == [Judgement.NOISE, Judgement.BETTER, Judgement.NOISE]


@pytest.mark.parametrize(("freedom", "wanted"), [(1, 12.706), (2, 4.303), (10, 2.228), (1e9, 1.960)])
def test_quantiles_are_those_of_the_tables(freedom: float, wanted: float) -> None:
    assert quantile(freedom) == pytest.approx(wanted, abs=0.002)


@given(gained=st.integers(0, 2000), lost=st.integers(0, 2000))
def test_mcnemars_p_value_is_a_probability_and_does_not_depend_on_the_order(gained: int, lost: int) -> None:
    assert 0 <= binomial_p(gained, lost) <= 1
    assert binomial_p(gained, lost) == binomial_p(lost, gained)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_turning_a_comparison_round_turns_its_sign(row: list[float], baseline: list[float]) -> None:
    def scores(values: list[float]) -> list[Score]:
        return [Score(seed, value, 500) for seed, value in enumerate(values)]

    there, back = compare(scores(row), scores(baseline)), compare(scores(baseline), scores(row))
    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high)
    assert there.low <= there.value <= there.high


def test_the_spread_between_seeds_is_pooled_over_all_rows_so_that_two_seeds_of_each_say_something() -> None:
    rng = np.random.default_rng(5)
    hardness = rng.uniform(0.2, 0.8, NUM_IMAGES)
    study = [runs(rng, hardness, 2, seed_spread=0.03) for _ in range(6)]
    pooled = seed_variance(study)
    assert pooled is not None
    assert pooled.freedom == 6
    assert pooled.own == pytest.approx(0.03**2, rel=0.8)
    alone, together = compare(study[0], study[1]), compare(study[0], study[1], pooled)
    assert alone is not None
    assert together is not None
    assert alone.value == together.value
    assert together.half_width < 0.1


def test_rows_with_other_numbers_of_seeds_are_compared_by_their_means() -> None:
    rng = np.random.default_rng(6)
    hardness = rng.uniform(0.2, 0.8, NUM_IMAGES)
    row, baseline = runs(rng, hardness, 3), runs(rng, hardness, 1)
    found, spread = compare(row, baseline), spread_of([score.accuracy for score in row])
    assert found is not None
    assert spread is not None
    assert found.method is Method.CROSSED
    assert found.value == pytest.approx(spread.mean - baseline[0].accuracy)


def test_rows_that_share_their_runs_count_once_in_the_spread_between_seeds() -> None:
    rng = np.random.default_rng(8)
    hardness = rng.uniform(0.2, 0.8, NUM_IMAGES)
    row = runs(rng, hardness, 3)
    assert seed_variance([row, list(row)]) == seed_variance([row])
    assert seed_variance([row[:1], row[1:2]]) is None
