"""Warnings from the spec alone: what a colleague would say, and nothing about specs that are fine."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.catalogue import CIFAR10, FASHION_MNIST
from models.networks.findings import spec_warnings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from models.spec.presets import experiment_presets
from tests.models.networks.specs import experiments


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


@settings(deadline=None, max_examples=100)
@given(spec=experiments(), info=st.sampled_from([CIFAR10, FASHION_MNIST]))
def test_any_valid_spec_can_be_looked_at(spec: ExperimentSpec, info: Any) -> None:
    findings = spec_warnings(spec, info)
    json.dumps(findings, allow_nan=False)
    for finding in findings:
        assert set(finding) == {"code", "severity", "sentence", "evidence", "suggestion"}
        assert finding["severity"] in ("info", "warning")
        assert set(finding["evidence"]) == {"epochs", "values"}
