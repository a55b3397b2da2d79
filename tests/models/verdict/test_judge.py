"""The verdict on histories at the edges: short, gappy, constant, broken; and each finding's figures and words."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec.parse import parse_spec
from models.verdict.divergence import Divergence
from tests.models.verdict.histories import findings, make_history, verdict_on

NAN, INF = math.nan, math.inf
FALLING = [2.0, 1.6, 1.4, 1.25, 1.15, 1.08, 1.03, 1.0, 0.98, 0.97]
RISING = [0.3, 0.45, 0.52, 0.56, 0.59, 0.61, 0.63, 0.64, 0.65, 0.655]


def test_no_epochs_are_said_to_be_none() -> None:
    verdict = verdict_on([], finished=False)
    assert verdict.summary == "No epoch has ended yet."
    assert set(findings(verdict)) == {"too-few-epochs"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_to_three_epochs_name_the_best_and_claim_no_more(count: int) -> None:
    verdict = verdict_on(make_history(FALLING[:count], RISING[:count], FALLING[:count]))
    assert verdict.best_by_loss.epoch == count
    assert set(findings(verdict)) <= {"best-epoch", "too-few-epochs"}
    assert verdict.stability is None
    assert "too few" in verdict.summary


def test_a_running_experiment_is_judged_so_far() -> None:
    verdict = verdict_on(make_history(FALLING, RISING, FALLING), finished=False)
    assert verdict.summary.startswith("So far, after 10 epochs")
    assert findings(verdict)["still-improving"].sentence.startswith("The network is still improving")
    assert "it is still improving" in verdict.summary


def test_one_epoch_at_chance_is_a_warning_and_many_a_problem() -> None:
    def severity(count: int) -> str:
        history = make_history([2.3026] * count, [0.1] * count, [2.3026] * count)
        return str(findings(verdict_on(history))["stuck-at-chance"].severity)

    assert severity(1) == "warning"
    assert severity(20) == "problem"


def test_a_loss_that_stands_still_at_ln_classes_means_dead_outputs() -> None:
    history = make_history([math.log(10)] * 8, [0.1] * 8, [math.log(10)] * 8)
    found = findings(verdict_on(history))["stuck-at-chance"]
    assert "dead" in found.sentence
    assert found.values["loss_of_guessing"] == pytest.approx(math.log(10))


def test_chance_depends_on_the_number_of_classes() -> None:
    history = make_history([0.693] * 8, [0.5] * 8, [0.693] * 8)
    assert "stuck-at-chance" in findings(verdict_on(history, num_classes=2))
    assert "stuck-at-chance" not in findings(verdict_on(history))


def test_a_tiny_rate_from_chance_is_told_from_dead_outputs() -> None:
    loss = [2.3026 - 2e-5 * epoch for epoch in range(12)]
    spec = parse_spec({"model": "baseline", "lr": 1e-8, "epochs": 12})
    found = findings(verdict_on(make_history(loss, [0.1] * 12, loss), spec=spec))["stuck-at-chance"]
    assert "1.0e-8 is far too small" in found.sentence
    assert "Raise" in found.suggestion


def test_a_constant_good_curve_gives_no_alarm() -> None:
    codes = set(findings(verdict_on(make_history([0.5] * 20, [0.8] * 20, [0.5] * 20))))
    assert codes == {"best-epoch", "wasted-epochs", "no-problem"}


def test_a_late_start_is_not_stuck() -> None:
    accuracy = [0.1] * 12 + [0.3, 0.5, 0.6, 0.65, 0.68, 0.7]
    loss = [2.303] * 12 + [1.9, 1.4, 1.2, 1.05, 1.0, 0.95]
    codes = set(findings(verdict_on(make_history(loss, accuracy, loss))))
    assert not codes & {"stuck-at-chance", "collapse", "overfitting", "below-chance"}


def test_falling_to_chance_for_good_is_a_collapse_and_stuck() -> None:
    accuracy = RISING + [0.1] * 30
    loss = FALLING + [2.3027] * 30
    found = findings(verdict_on(make_history(loss, accuracy, loss)))
    assert found["collapse"].epochs[0] == 11
    assert "From epoch" in found["stuck-at-chance"].sentence
    assert found["collapse"].values["lost"] == pytest.approx(1, abs=0.02)


def test_a_drop_in_the_last_epoch_is_said_to_be_one_epoch() -> None:
    history = make_history([*FALLING, 2.3], [*RISING, 0.1], [*FALLING, 2.2])
    assert "last epoch only" in findings(verdict_on(history))["collapse"].sentence


def test_a_recovered_collapse_is_a_warning_with_both_epochs() -> None:
    accuracy = [*RISING, 0.12, 0.4, 0.64, 0.65, 0.66, 0.66, 0.66]
    loss = [*FALLING, 2.4, 1.5, 1.0, 0.97, 0.96, 0.96, 0.96]
    found = findings(verdict_on(make_history(loss, accuracy, loss)))["collapse"]
    assert found.severity == "warning"
    assert found.values["recovered"] == 13
    assert found.epochs == [11, 13]


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("first", [1, 4, 10])
def test_a_loss_that_stays_non_finite_is_a_divergence_from_its_first_epoch(bad: float, first: int) -> None:
    loss = [value if epoch + 1 < first else bad for epoch, value in enumerate(FALLING)]
    accuracy = [value if epoch + 1 < first else 0.1 for epoch, value in enumerate(RISING)]
    verdict = verdict_on(make_history(loss, accuracy, loss))
    found = findings(verdict)["divergence"]
    assert found.epochs == [first]
    assert verdict.findings[0].code in ("divergence", "collapse", "stuck-at-chance")
    assert f"diverged in epoch {first}" in verdict.summary


def test_missing_figures_in_between_are_left_out_and_said() -> None:
    loss: list[float | None] = [*FALLING]
    loss[3], loss[6] = None, INF
    verdict = verdict_on(make_history(loss, RISING, FALLING))
    assert "divergence" not in findings(verdict)
    assert findings(verdict)["missing-values"].epochs == [4, 7]
    assert verdict.best_by_loss.epoch == 10


@pytest.mark.parametrize("missing", ["train_loss", "train_accuracy", "val_loss", "val_accuracy"])
def test_a_series_that_was_never_measured_is_no_divergence(missing: str) -> None:
    given_series = {"val_loss": FALLING, "val_accuracy": RISING, "train_loss": FALLING, "train_accuracy": RISING}
    del given_series[missing]
    verdict = verdict_on(make_history(**given_series))
    assert not set(findings(verdict)) & {"divergence", "missing-values"}
    assert "best-epoch" in findings(verdict)


def overfitted(**series: Any) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    t = np.arange(30.0)
    val = 1 + np.exp(-t / 3) + 0.03 * np.maximum(t - 10, 0) + rng.normal(0, 0.01, 30)
    accuracy = 0.7 - 0.5 * np.exp(-t / 3) - 0.004 * np.maximum(t - 10, 0) + rng.normal(0, 0.004, 30)
    train = 1 + np.exp(-t / 3) - 0.03 * t
    table = {"val_loss": val, "val_accuracy": accuracy, "train_loss": train, "train_accuracy": accuracy + 0.01 * t}
    table.update(series)
    lists = {name: values.tolist() for name, values in table.items() if values is not None}
    return verdict_on(make_history(**lists))


def test_overfitting_tells_its_onset_how_sure_it_is_and_that_accuracy_fell() -> None:
    found = findings(overfitted())["overfitting"]
    assert found.severity == "warning"
    assert 7 <= found.values["onset"] <= 14
    low, high = found.values["onset_range"]
    assert low <= found.values["onset"] <= high
    assert found.values["confidence"] > 0.99
    assert "Accuracy falls" in found.sentence


@pytest.mark.parametrize("missing", ["train_loss", "train_accuracy", "val_accuracy", "val_loss"])
def test_overfitting_is_seen_with_a_series_missing(missing: str) -> None:
    assert "overfitting" in findings(overfitted(**{missing: None}))


def test_a_rise_that_the_training_loss_shares_is_not_overfitting() -> None:
    t = np.arange(30.0)
    val = 1 + np.exp(-t / 3) + 0.03 * np.maximum(t - 10, 0)
    codes = set(findings(overfitted(val_loss=val, train_loss=val - 0.1)))
    assert "overfitting" not in codes
    assert "training-loss-rising" in codes


def test_a_wide_gap_is_said_with_both_figures() -> None:
    train = [value * 0.3 for value in FALLING]
    found = findings(verdict_on(make_history(FALLING, RISING, train, [0.95] * 10)))["generalisation-gap"]
    assert found.severity == "warning"
    assert "against 95.0%" in found.sentence


def gap_with(**parts: Any) -> bool:
    spec = parse_spec({"model": "baseline", "epochs": 10, **parts})
    train = [value * 0.3 for value in FALLING]
    return "generalisation-gap" in findings(verdict_on(make_history(FALLING, RISING, train), spec=spec))


@pytest.mark.parametrize("parts", [{"label_smoothing": 0.2}, {"class_weights": "balanced"}], ids=range(2))
def test_losses_that_share_a_scale_are_compared_whatever_training_minimises(parts: dict[str, Any]) -> None:
    assert gap_with(**parts)


def test_the_loss_of_mixed_images_is_not_compared() -> None:
    assert not gap_with(augmentation={"mixup_alpha": 0.2})


def test_a_finite_loss_that_exploded_names_the_rate() -> None:
    spec = parse_spec({"model": "baseline", "epochs": 10, "lr": 100})
    loss = [2e3, 5e7, 1e12, *[2e16] * 7]
    verdict = verdict_on(make_history(loss, [0.1] * 10, loss), spec=spec)
    found = findings(verdict)
    assert found["loss-exploded"].severity == "problem"
    assert "at a learning rate of 100.0" in found["loss-exploded"].sentence
    assert "at a learning rate of 100.0" in verdict.summary


def test_outputs_that_start_too_large_and_come_down_have_not_exploded() -> None:
    loss = [60.0, 30.0, 12.0, 6.0, 4.0, 3.5, 3.2, 3.0]
    assert "loss-exploded" not in findings(verdict_on(make_history(loss, [0.1] * 8, loss)))


def test_an_improving_run_is_told_to_train_longer_or_to_stretch_its_schedule() -> None:
    spec = parse_spec({"model": "baseline", "epochs": 10})
    loss = [2.2 - 0.12 * epoch for epoch in range(10)]
    accuracy = [0.2 + 0.04 * epoch for epoch in range(10)]
    constant = verdict_on(make_history(loss, accuracy, loss, lr=[0.1] * 10), spec=spec)
    spent = verdict_on(make_history(loss, accuracy, loss, lr=[0.1 * 0.4**n for n in range(10)]), spec=spec)
    assert "Train longer: 15 to 20 epochs" in findings(constant)["still-improving"].suggestion
    assert "stretched" in findings(spent)["still-improving"].suggestion


def test_early_stopping_that_did_its_work_is_good() -> None:
    stopping = {"monitor": "val_loss", "patience": 3}
    spec = parse_spec({"model": "baseline", "epochs": 40, "early_stopping": stopping})
    loss = [*FALLING, 0.99, 0.985, 1.0]
    found = findings(verdict_on(make_history(loss, None, loss), spec=spec))["early-stopped"]
    assert found.severity == "good"
    assert found.values["saved"] == 27
    assert "early-stopped" not in findings(verdict_on(make_history(FALLING, None, FALLING), spec=spec))


DIVERGENCE = Divergence(
    epoch=2,
    step=7,
    what="loss",
    layer="features.3",
    layer_type="Conv2d",
    grad_norms=(1.0, 3.0, 40.0, 9e5, INF),
    lr=0.5,
    suggested_lr=0.01,
    why="6.0 times below 0.06, where the loss began to rise again.",
)


def test_an_explained_divergence_names_step_layer_path_and_a_rate() -> None:
    history = make_history([1.9, NAN], [0.3, 0.1], [2.0, NAN])
    verdict = verdict_on(history, divergences=[DIVERGENCE])
    found = findings(verdict)["divergence"]
    assert found.sentence == (
        "Training diverged: the loss stopped being finite at step 7 of epoch 2, first in layer features.3 (Conv2d). "
        "The gradient's norm went 1.000 -> 3.000 -> 40.0 -> 9.0e5 -> not finite."
    )
    assert found.values["suggested_lr"] == 0.01
    assert "0.0100 instead of 0.500" in found.suggestion
    json.dumps(verdict.as_json(), allow_nan=False)


def test_a_lowered_rate_is_a_finding_of_its_own_and_the_divergence_no_longer_a_problem() -> None:
    lowered = Divergence(**{**vars(DIVERGENCE), "lowered_to": 0.05})
    found = findings(verdict_on(make_history(FALLING, RISING, FALLING), divergences=[lowered]))
    assert found["divergence"].severity == "warning"
    assert found["lr-lowered"].values == {"lr_before": 0.5, "lr_after": 0.05}


def test_findings_come_in_the_order_of_their_weight() -> None:
    order = ["problem", "warning", "info", "good"]
    places = [order.index(finding.severity) for finding in overfitted().findings]
    assert places == sorted(places)


def test_epochs_may_come_unsorted_or_twice_and_the_last_one_counts() -> None:
    history = make_history(FALLING, RISING, FALLING)
    earlier = make_history([9.0] * 10, [0.5] * 10, [9.0] * 10)
    shuffled = [earlier[5], *history[5:], *history[:5], history[0]]
    assert verdict_on(shuffled).as_json() == verdict_on(history).as_json()


def test_the_same_history_gets_the_same_verdict() -> None:
    assert overfitted().as_json() == overfitted().as_json()


figures = st.one_of(
    st.floats(min_value=0, max_value=1e6),
    st.sampled_from([NAN, INF, -INF, 0.0, 1e-30, 1e30, 2.302585]),
    st.none(),
)
fractions = st.one_of(st.floats(min_value=0, max_value=1), st.sampled_from([0.0, 0.1, 1.0, NAN]), st.none())


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(figures, fractions, figures, fractions), max_size=40),
    num_classes=st.sampled_from([1, 2, 10, 1000]),
    finished=st.booleans(),
)
def test_any_history_gets_a_verdict_that_is_json(
    rows: list[tuple[float | None, ...]], num_classes: int, finished: bool
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    history = make_history(*columns)
    verdict = verdict_on(history, num_classes=num_classes, finished=finished)
    json.dumps(verdict.as_json(), allow_nan=False)
    for finding in verdict.findings:
        assert finding.sentence
        assert finding.severity in ("good", "info", "warning", "problem")
        assert all(1 <= epoch <= len(history) for epoch in finding.epochs)
        assert finding.suggestion or finding.severity in ("good", "info")
