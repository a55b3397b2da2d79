"""Presets, aliases and short forms expand to the expected spec."""

from typing import Any

import pytest

from models.errors import SpecError
from models.spec.parse import model_label, parse_spec
from models.spec.training import AdamSpec, AdamWSpec, ConstantSpec, ExponentialSpec, SgdSpec


def test_names_stand_for_objects() -> None:
    spec = parse_spec({"model": "wide", "optimizer": "adam", "lr_scheduler": "cosine", "dataset": "fashion-mnist"})
    assert (spec.optimizer.name, spec.lr_scheduler.name, spec.dataset.name) == ("adam", "cosine", "fashion-mnist")
    assert parse_spec({"model": "baseline", "lr_scheduler": None}).lr_scheduler == ConstantSpec()


@pytest.mark.parametrize(
    "body",
    [
        {"learning_rate": 0.5, "wd": 0.1},
        {"lr": 0.5, "weight_decay": 0.1},
        {"optimizer": {"learning_rate": 0.5, "wd": 0.1}},
        {"optimizer": {"name": "sgd", "lr": 0.5}, "weight_decay": 0.1},
    ],
    ids=range(4),
)
def test_aliases_mean_the_fields_own_names(body: dict[str, Any]) -> None:
    assert parse_spec({"model": "baseline", **body}).optimizer == SgdSpec(lr=0.5, weight_decay=0.1)


def test_scheduler_is_an_alias_at_the_top_only() -> None:
    assert parse_spec({"model": "baseline", "scheduler": "exponential"}).lr_scheduler == ExponentialSpec()
    with pytest.raises(SpecError, match="sgd has no 'scheduler'"):
        parse_spec({"model": "baseline", "optimizer": {"scheduler": "exponential"}})


@pytest.mark.parametrize(
    "body",
    [
        {"lr": 0.1, "learning_rate": 0.2},
        {"lr": 0.1, "optimizer": {"lr": 0.2}},
        {"optimizer": {"lr": 0.1, "learning_rate": 0.2}},
        {"scheduler": "cosine", "lr_scheduler": "step"},
    ],
    ids=range(4),
)
def test_the_same_thing_twice_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="given twice"):
        parse_spec({"model": "baseline", **body})


def test_a_preset_is_changed_key_by_key() -> None:
    spec = parse_spec({"preset": "lab-report/6e", "epochs": 10, "augmentation": {"hflip": 0.1}, "lr": 0.2})
    assert (spec.epochs, spec.batch_size) == (10, 128)
    assert (spec.augmentation.hflip, spec.augmentation.vflip) == (0.1, 0.5)
    assert spec.optimizer == SgdSpec(lr=0.2, momentum=0.9)
    assert spec.lr_scheduler == ExponentialSpec(gamma=0.95)


def test_another_kind_replaces_the_presets_part() -> None:
    spec = parse_spec({"preset": "lab-report/6e", "optimizer": {"name": "adamw", "weight_decay": 0.1}})
    assert spec.optimizer == AdamWSpec(weight_decay=0.1)
    assert parse_spec({"preset": "lab-report/6e", "lr_scheduler": None}).lr_scheduler == ConstantSpec()
    assert parse_spec({"preset": "lab-report/6e", "optimizer": "sgd"}).optimizer == SgdSpec(lr=0.1)


def test_a_part_without_a_name_is_of_the_presets_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "mine": {"model": "baseline", "optimizer": {"name": "adam", "lr": 0.5}},
        "plain": {"model": "wide", "lr": 0.3},
    }
    monkeypatch.setattr("models.spec.parse.experiment_presets", lambda: own)
    assert parse_spec({"preset": "mine", "optimizer": {"eps": 0.1}}).optimizer == AdamSpec(lr=0.5, eps=0.1)
    assert parse_spec({"preset": "mine", "lr": 0.2}).optimizer == AdamSpec(lr=0.2)
    assert parse_spec({"preset": "plain", "optimizer": {"name": "sgd", "momentum": 0.5}}).optimizer == SgdSpec(
        lr=0.3, momentum=0.5
    )
    with pytest.raises(SpecError, match="adam has no 'momentum'"):
        parse_spec({"preset": "mine", "momentum": 0.5})


def test_a_presets_network_can_be_changed_or_replaced() -> None:
    changed = parse_spec({"preset": "lab-report/1", "model": {"input_size": 48}}).model
    assert (model_label(changed), changed.input_size) == ("baseline", 48)
    assert model_label(parse_spec({"preset": "lab-report/1", "model": "wide"}).model) == "wide"
    own = {"blocks": [{"convs": [{"channels": 7}]}]}
    assert model_label(parse_spec({"preset": "lab-report/1", "model": own}).model) == "cnn"


def test_a_part_of_a_preset_can_be_switched_off() -> None:
    assert parse_spec({"preset": "lab-report/5", "clip_grad_norm": None}).clip_grad_norm is None


def test_a_pretrained_network_has_its_gradients_clipped_unless_the_spec_says_otherwise() -> None:
    pretrained = {"name": "squeezenet1_1", "pretrained": True, "input_size": 64}
    assert parse_spec({"model": pretrained}).clip_grad_norm == 1.0
    assert parse_spec({"model": pretrained, "clip_grad_norm": None}).clip_grad_norm is None
    assert parse_spec({"model": pretrained, "clip_grad_norm": 5}).clip_grad_norm == 5.0
    assert parse_spec({"model": {**pretrained, "pretrained": False}}).clip_grad_norm is None
    assert parse_spec({"model": "baseline"}).clip_grad_norm is None
    stored = parse_spec({"model": pretrained}).as_json()
    assert parse_spec(stored).as_json() == stored
