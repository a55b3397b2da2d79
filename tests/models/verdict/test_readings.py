"""The verdict on each curve of the lab report agrees with a reading by hand (readings.py)."""

from functools import cache

import numpy as np
import pytest

from models.curves.metrics import EpochMetrics
from models.curves.stability import compare_stability, measure_stability
from models.verdict import Verdict
from tests.models.verdict.histories import findings, make_history, notebook_history, verdict_on
from tests.models.verdict.readings import CURVES, ROWS, STEADIER, Row


@cache
def reports(name: str) -> Verdict:
    return verdict_on(notebook_history(name))


@pytest.mark.parametrize("name", CURVES)
def test_the_best_epochs_are_the_readers(name: str) -> None:
    verdict = reports(name)
    assert verdict.best_by_loss.epoch == CURVES[name].best_loss
    assert verdict.best_by_accuracy.epoch == CURVES[name].best_accuracy


@pytest.mark.parametrize("name", CURVES)
def test_the_findings_are_the_readers(name: str) -> None:
    codes = set(findings(reports(name)))
    assert codes >= CURVES[name].must
    assert not codes & CURVES[name].must_not


@pytest.mark.parametrize("name", CURVES)
def test_what_went_wrong_begins_where_the_reader_says(name: str) -> None:
    found = findings(reports(name))
    for code, (earliest, latest) in CURVES[name].begins.items():
        assert earliest <= found[code].epochs[0] <= latest, code


@pytest.mark.parametrize("name", [name for name in CURVES if CURVES[name].wasted])
def test_the_wasted_epochs_are_as_many_as_the_reader_counts(name: str) -> None:
    fewest, most = CURVES[name].wasted or (0, 0)
    assert fewest <= findings(reports(name))["wasted-epochs"].values["wasted"] <= most


@pytest.mark.parametrize("name", ["baseline", "narrow", "three_conv", "three_blocks_dropout"])
def test_overfitting_in_the_report_is_beyond_doubt(name: str) -> None:
    assert findings(reports(name))["overfitting"].values["confidence"] >= 0.98


def test_a_lowest_loss_that_noise_explains_does_not_stand_out() -> None:
    assert not reports("three_blocks_scheduler").best_by_loss.stands_out
    assert reports("baseline").best_by_loss.stands_out


@pytest.mark.parametrize(("steadier", "other"), STEADIER)
def test_the_steadier_curve_has_the_larger_figure(steadier: str, other: str) -> None:
    found = compare_stability(*(measure_stability(notebook_history(name), 10) for name in (steadier, other)))
    assert found["more_stable"] == 0, found["sentence"]


def test_the_summary_is_one_sentence_that_names_the_trouble() -> None:
    assert reports("baseline").summary == (
        "After 50 epochs the best validation accuracy is 60.7% (epoch 6); the network collapsed from epoch 40, and it "
        "overfits from about epoch 6."
    )
    for name in CURVES:
        summary = reports(name).summary
        assert summary.endswith(".")
        assert summary.count(". ") == 0


def history_of(row: Row, seed: int) -> list[EpochMetrics]:
    """A run with a row's figures: the table tells its best and last accuracy and the epoch of its lowest loss.

    In between: accuracy climbs quickly, then slowly to the best, and falls in a straight line to the last. The loss
    has its lowest where the table says and rises afterwards by what the accuracy's fall, or an overfitting network's
    growing confidence, brings. The training loss of a collapsed run rises with it; that of any other falls on.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(1, row.epochs + 1, dtype=float)
    best, when = row.best_accuracy
    lowest = row.lowest_loss_epoch or when
    climbed = 1 - np.exp(-3 * t / when) if when < 0.7 * row.epochs else np.log1p(9 * t / when) / np.log(10)
    accuracy = 0.1 + (best - 0.1) * climbed / climbed[when - 1]
    after = np.clip((t - when) / max(row.epochs - when, 1), 0, 1)
    accuracy = np.where(t <= when, accuracy, best - (best - row.final_accuracy) * after)
    rising = np.clip((t - lowest) / max(row.epochs - lowest, 1), 0, 1)
    loss = 2.3 * (1 - np.log1p(9 * np.minimum(t, lowest) / lowest) / np.log(10) * best)
    collapsed = row.final_accuracy < 0.7 * best
    loss = loss + rising * (1.0 if collapsed else 0.25)
    train = 2.2 - 1.2 * np.log1p(9 * t / row.epochs) / np.log(10) + (1.2 * after**2 if collapsed else 0)
    accuracy = accuracy + rng.normal(0, 0.004, row.epochs)
    accuracy = np.minimum(accuracy, best - 1e-4)
    accuracy[-1], accuracy[when - 1] = row.final_accuracy, best
    loss = loss + rng.normal(0, 0.012, row.epochs)
    loss[lowest - 1] = loss.min() - 0.001
    return make_history(loss.tolist(), accuracy.tolist(), (train + rng.normal(0, 0.004, row.epochs)).tolist())


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("seed", range(4))
def test_a_row_of_the_table_is_read_as_its_reader_did(name: str, seed: int) -> None:
    row = ROWS[name]
    history = history_of(row, seed)
    verdict = verdict_on(history)
    codes = set(findings(verdict))
    assert verdict.best_by_accuracy.epoch == row.best_accuracy[1]
    assert codes >= row.must, verdict.summary
    assert not codes & row.must_not, verdict.summary


def test_row_5_whose_losses_were_never_finite_has_diverged() -> None:
    history = make_history([float("nan")] * 30, [0.1] * 30, [float("nan")] * 30)
    found = findings(verdict_on(history))
    assert found["divergence"].epochs == [1]
    assert found["divergence"].severity == "problem"
    assert "no-problem" not in found
