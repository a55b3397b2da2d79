"""Warnings that follow from the spec alone; a spec without fault gets none."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.data.cifar10 import CIFAR10
from models.data.fashion_mnist import FASHION_MNIST
from models.errors import SpecError
from models.networks.describe import describe
from models.networks.findings import spec_warnings
from models.spec.changes import with_changes
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from models.spec.presets import experiment_presets
from tests.models.networks.specs import cnns, experiments, fast_resnets
from tests.models.spec.strategies import SPECS
from tests.texts import faults_of


def codes(body: dict[str, Any], info: Any = CIFAR10) -> list[str]:
    return [finding["code"] for finding in spec_warnings(parse_spec(body), info)]


SQUEEZENET = {"name": "squeezenet1_1", "pretrained": True, "input_size": 64}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": {"name": "squeezenet1_1"}}, "small-input"),
        ({"model": "baseline", "optimizer": {"lr": 5.0}}, "high-learning-rate"),
        ({"model": "baseline", "optimizer": {"name": "adam", "lr": 0.1}}, "high-learning-rate"),
        ({"model": "baseline", "optimizer": {"lr": 1e-8}}, "low-learning-rate"),
        ({"model": SQUEEZENET, "optimizer": {"lr": 0.2}}, "high-learning-rate"),
        (
            {"model": {"blocks": [{"convs": [{"channels": 8}]}], "head": {"hidden": [64, 10]}}},
            "output-layer-written-down",
        ),
        ({"model": {"blocks": [{"convs": [{"channels": 8}]}], "head": {"hidden": [64, 5]}}}, "narrow-head"),
        ({"model": "baseline", "dataset": {"val_limit": 100}}, "small-validation-split"),
        ({"model": "baseline", "dataset": {"train_limit": 100}, "batch_size": 128}, "batch-larger-than-split"),
        ({"model": "baseline", "dataset": {"train_limit": 50_000}}, "limit-without-effect"),
        ({"model": "baseline", "augmentation": {"cutout_pixels": 30}}, "strong-augmentation"),
        ({"model": "baseline", "augmentation": {"vflip": 0.5}}, "upside-down"),
        ({"model": "baseline", "fine_tuning": {"backbone_lr_factor": 0.0}}, "frozen-without-pretraining"),
        ({"model": SQUEEZENET, "epochs": 2, "fine_tuning": {"freeze_backbone_epochs": 2}}, "never-unfrozen"),
        (
            {"model": "baseline", "epochs": 5, "lr_scheduler": {"name": "step", "step_size": 5}},
            "schedule-without-effect",
        ),
        ({"model": "baseline", "epochs": 5, "early_stopping": {"patience": 5}}, "patience-without-effect"),
        ({"model": "baseline", "epochs": 1, "ema_decay": 0.9999}, "slow-averaging"),
    ],
)
def test_a_mistake_is_named(body: dict[str, Any], code: str) -> None:
    assert code in codes(body)


WITHOUT_EFFECT: list[tuple[dict[str, Any], str]] = [
    ({"lr_scheduler": {"name": "cosine", "eta_min": 0.01}, "lr": 0.01}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "cosine", "eta_min": 1}, "lr": 0.1}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "plateau", "min_lr": 0.1}, "lr": 0.1}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "plateau", "patience": 8}}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "exponential", "gamma": 1}}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "step", "gamma": 1, "step_size": 2}}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "multistep", "milestones": [2], "gamma": 1}}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "exponential"}, "epochs": 1}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "step", "step_size": 1}, "epochs": 1}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "multistep", "milestones": [10, 12]}}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "multistep", "milestones": [4, 10]}}, "milestone-without-effect"),
    ({"lr_scheduler": {"name": "one_cycle", "div_factor": 1, "final_div_factor": 1}}, "schedule-without-effect"),
    ({"lr_scheduler": {"name": "cosine", "warmup_start_factor": 0.5}}, "warmup-without-effect"),
    ({"lr_scheduler": {"name": "cosine", "warmup_epochs": 2, "warmup_start_factor": 1}}, "warmup-without-effect"),
    ({"lr_scheduler": {"name": "cosine", "warmup_epochs": 0.0001}}, "warmup-without-effect"),
    ({"lr_scheduler": {"name": "cosine", "warmup_epochs": 10}}, "warmup-throughout"),
    ({"early_stopping": {"patience": 9}}, "patience-without-effect"),
    ({"early_stopping": {"patience": 1}, "epochs": 1}, "patience-without-effect"),
    ({"early_stopping": {"patience": 1}, "epochs": 2}, "patience-without-effect"),
    ({"early_stopping": {"monitor": "val_accuracy", "min_delta": 1}}, "min-delta-out-of-reach"),
    ({"early_stopping": {"monitor": "val_loss", "min_delta": 3}}, "min-delta-out-of-reach"),
    ({"augmentation": {"mixup_alpha": 0.2}, "batch_size": 1}, "mixup-without-effect"),
    ({"fine_tuning": {"backbone_lr_factor": 0, "freeze_backbone_epochs": 3}}, "freezing-without-effect"),
    ({"dataset": {"train_limit": 100}, "accumulate_batches": 8}, "accumulation-without-effect"),
    ({"ema_decay": 0}, "averaging-without-effect"),
    ({"class_weights": [2] * 10}, "class-weights-without-effect"),
    ({"class_weights": [0, 0, *[1] * 8]}, "classes-of-weight-0"),
    (
        {"model": "fast_resnet", "progressive_resizing": [{"from_epoch": 1, "input_size": 32}]},
        "resizing-without-effect",
    ),
    ({"model": "fast_resnet", "progressive_resizing": [{"from_epoch": 99, "input_size": 16}]}, "phase-without-effect"),
]


@pytest.mark.parametrize(("body", "code"), WITHOUT_EFFECT, ids=range(len(WITHOUT_EFFECT)))
def test_a_setting_that_another_one_takes_the_effect_of_is_named_with_what_mends_it(
    body: dict[str, Any], code: str
) -> None:
    spec = parse_spec({"model": "baseline", **body})
    [finding] = [finding for finding in spec_warnings(spec, CIFAR10) if finding["code"] == code]
    mended = with_changes(spec, finding["changes"])
    assert code not in [other["code"] for other in spec_warnings(mended, CIFAR10)]


@pytest.mark.parametrize(
    "body",
    [
        {"lr_scheduler": {"name": "cosine", "eta_min": 0.0099}, "lr": 0.01},
        {"lr_scheduler": {"name": "plateau", "patience": 7}},
        {"lr_scheduler": {"name": "exponential"}, "epochs": 2},
        {"lr_scheduler": {"name": "multistep", "milestones": [4, 9]}},
        {"lr_scheduler": {"name": "one_cycle", "div_factor": 1}},
        {"lr_scheduler": {"name": "cosine", "warmup_epochs": 0.5}},
        {"early_stopping": {"patience": 8}},
        {"early_stopping": {"monitor": "val_accuracy", "min_delta": 0.01}},
        {"augmentation": {"mixup_alpha": 0.2}, "batch_size": 2},
        {"dataset": {"train_limit": 100}, "accumulate_batches": 4},
        {"class_weights": "balanced"},
        {"class_weights": [1, *[2] * 9]},
    ],
    ids=range(12),
)
def test_a_setting_that_has_an_effect_is_not_warned_about(body: dict[str, Any]) -> None:
    found = codes({"model": "baseline", **body})
    assert not [code for code in found if "without-effect" in code or "reach" in code or "throughout" in code], found


def test_hue_of_gray_images_is_named() -> None:
    assert "colour-of-gray-images" in codes(
        {"model": "baseline", "augmentation": {"color_jitter": {"hue": 0.1}}}, FASHION_MNIST
    )


@pytest.mark.parametrize("name", sorted(experiment_presets()))
def test_presets_are_not_warned_about_but_for_what_the_report_itself_did(name: str) -> None:
    expected = {"lab-report/bonus": {"small-input"}}
    warned = {
        finding["code"]
        for finding in spec_warnings(parse_spec({"preset": name}), CIFAR10)
        if finding["severity"] == "warning"
    }
    assert warned <= expected.get(name, set())


def test_momentum_decides_what_rate_is_too_high() -> None:
    assert "high-learning-rate" not in codes({"model": "baseline", "optimizer": {"lr": 1.0, "momentum": 0.0}})
    assert "high-learning-rate" in codes({"model": "baseline", "optimizer": {"lr": 1.0, "momentum": 0.9}})
    assert "high-learning-rate" in codes({"model": "baseline", "optimizer": {"lr": 0.1, "momentum": 0.99}})


@settings(deadline=None, max_examples=60)
@given(spec=experiments(cnns | fast_resnets), info=st.sampled_from([CIFAR10, FASHION_MNIST]))
def test_any_valid_spec_can_be_looked_at(spec: ExperimentSpec, info: Any) -> None:
    findings = spec_warnings(spec, info)
    json.dumps(findings, allow_nan=False)
    for finding in findings:
        assert set(finding) == {"code", "severity", "sentence", "evidence", "suggestion", "changes"}
        assert finding["severity"] in ("info", "warning")
        assert set(finding["evidence"]) == {"epochs", "values"}


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(  # torchvision's networks take seconds to look at, so they are not among these
    spec=experiments(cnns | fast_resnets) | SPECS.map(lambda body: parse_spec({**body, "model": "baseline"})),
    info=st.sampled_from([CIFAR10, FASHION_MNIST, replace(CIFAR10, num_train=30)]),
)
def test_what_a_warning_or_a_refusal_suggests_can_be_run(spec: ExperimentSpec, info: Any) -> None:
    try:
        describe(spec, info)
    except SpecError as error:
        for entry in error.errors:
            assert faults_of(entry["message"]) == []
            if "nearest" in entry:
                describe(with_changes(spec, {entry["field"]: entry["nearest"]}), info)
        return
    for finding in spec_warnings(spec, info):
        assert faults_of(finding["sentence"]) == []
        assert faults_of(finding["suggestion"]) == []
        if finding["changes"]:
            changed = with_changes(spec, finding["changes"])
            describe(changed, info)
            assert finding["sentence"] not in [other["sentence"] for other in spec_warnings(changed, info)]


def test_refusals_count_one_in_the_singular() -> None:
    with pytest.raises(SpecError) as caught:
        describe(parse_spec({"model": "baseline", "class_weights": [1.0]}), CIFAR10)
    assert caught.value.errors[0]["message"] == "has 1 entry for the 10 classes of cifar10"
    model = {"name": "cnn", "blocks": [{"convs": [{"channels": 4}]}], "head": {"hidden": [8], "dropout": [0.1]}}
    with pytest.raises(SpecError) as caught:
        parse_spec({"model": model})
    assert caught.value.errors[0]["message"].startswith("has 1 entry for 1 hidden layer; give 2")
