"""A wrong spec gets one entry a mistake: the field, what is wrong, and the nearest valid value."""

from typing import Any

import pytest

from models.errors import SpecError
from models.spec.parse import parse_spec


def errors_of(body: Any) -> list[dict[str, Any]]:
    """The entries that a body is refused with."""
    with pytest.raises(SpecError) as caught:
        parse_spec(body)
    assert caught.value.fix is not None
    return caught.value.errors


def error_of(**parts: Any) -> dict[str, Any]:
    """The only entry that `baseline` with these parts is refused with."""
    [entry] = errors_of({"model": "baseline", **parts})
    return entry


def test_a_key_of_another_kind_is_explained_by_the_kind_that_was_chosen() -> None:
    assert error_of(optimizer={"name": "adam", "momentum": 0.9}) == {
        "field": "optimizer.momentum",
        "message": "adam has no 'momentum'; it has lr, betas, eps, weight_decay; sgd and rmsprop have 'momentum'",
    }
    assert error_of(optimizer="adam", momentum=0.9)["field"] == "optimizer.momentum"
    assert error_of(lr_scheduler={"name": "constant", "gamma": 0.9})["message"].startswith("constant has no 'gamma'")
    [entry] = errors_of({"model": {"name": "resnet18", "blocks": []}})
    assert (
        entry["message"]
        == "resnet18 has no 'blocks'; it has init_from, pretrained, keep_head, input_size; cnn has 'blocks'"
    )


@pytest.mark.parametrize(
    ("body", "field", "nearest"),
    [
        ({"epoch": 3}, "epoch", "epochs"),
        ({"optimizer": {"name": "sgd", "momntum": 0.9}}, "optimizer.momntum", "momentum"),
        ({"dataset": {"val_fracton": 0.1}}, "dataset.val_fracton", "val_fraction"),
        ({"augmentation": {"color_jitter": {"brightnes": 0.1}}}, "augmentation.color_jitter.brightnes", "brightness"),
        ({"early_stopping": {"patient": 3}}, "early_stopping.patient", "patience"),
        (
            {"model": {"name": "cnn", "blocks": [{"conv": [], "convs": [{"channels": 3}]}]}},
            "model.blocks.0.conv",
            "convs",
        ),
        ({"prset": "lab-report/1"}, "prset", "preset"),
    ],
    ids=range(7),
)
def test_an_unknown_key_names_the_nearest_known_one(body: dict[str, Any], field: str, nearest: str) -> None:
    [entry] = errors_of({"model": "baseline", **body})
    assert (entry["field"], entry["nearest"]) == (field, nearest)
    assert entry["message"].endswith(f"did you mean '{nearest}'?")


def test_a_key_one_level_too_high_is_sent_home() -> None:
    entry = error_of(hflip=0.5)
    assert entry["message"] == (
        'unknown key \'hflip\' here; it belongs to augmentation: {"augmentation": {"hflip": ...}}'
    )
    assert entry["nearest"] == "augmentation.hflip"
    assert error_of(gamma=0.9, lr_scheduler="exponential")["nearest"] == "lr_scheduler.gamma"


@pytest.mark.parametrize(
    ("body", "field", "value", "nearest"),
    [
        ({"epochs": 0}, "epochs", 0, 1),
        ({"epochs": 10**6}, "epochs", 10**6, 10_000),
        ({"batch_size": -5}, "batch_size", -5, 1),
        ({"lr": 1000}, "optimizer.lr", 1000, 100),
        ({"optimizer": {"name": "adam", "betas": [0.9, 2]}}, "optimizer.betas.1", 2, 0.99999),
        ({"lr_scheduler": {"name": "step", "step_size": 0}}, "lr_scheduler.step_size", 0, 1),
        ({"dataset": {"val_fraction": 0}}, "dataset.val_fraction", 0, 0.01),
        ({"augmentation": {"color_jitter": {"hue": 1}}}, "augmentation.color_jitter.hue", 1, 0.5),
        ({"precision": "fp8"}, "precision", "fp8", "fp32"),
        ({"precision": "double"}, "precision", "double", "auto"),
        ({"on_divergence": "lower_learning_rate"}, "on_divergence", "lower_learning_rate", "lower_lr"),
        ({"test_time_augmentation": "miror"}, "test_time_augmentation", "miror", "mirror"),
        ({"lr_scheduler": {"name": "one_cycle", "anneal": "cosine"}}, "lr_scheduler.anneal", "cosine", "cos"),
        ({"optimizer": "adm"}, "optimizer.name", "adm", "adam"),
        ({"optimizer": {"name": "lion"}}, "optimizer.name", "lion", "sgd"),
        ({"lr_scheduler": "cosin"}, "lr_scheduler.name", "cosin", "cosine"),
        ({"model": "baselin"}, "model.name", "baselin", "baseline"),
        ({"model": "resnet500"}, "model.name", "resnet500", "resnet50"),
        ({"model": "CNN"}, "model.name", "CNN", "cnn"),
        ({"optimizer": "SGD"}, "optimizer.name", "SGD", "sgd"),
        ({"preset": "lab-report/6f"}, "preset", "lab-report/6f", "lab-report/6e"),
        ({"spec_version": 3}, "spec_version", 3, 2),
        ({"dataset": {"name": ""}}, "dataset.name", "", "cifar10"),
        ({"epochs": "12"}, "epochs", "12", 12),
        ({"epochs": 2.6}, "epochs", 2.6, 3),
        ({"lr": "1e-3"}, "optimizer.lr", "1e-3", 0.001),
        ({"optimizer": {"nesterov": "true"}}, "optimizer.nesterov", "true", True),
    ],
    ids=range(27),
)
def test_out_of_range_and_wrong_choices_name_the_nearest(
    body: dict[str, Any], field: str, value: Any, nearest: Any
) -> None:
    [entry] = errors_of({"model": "baseline", **body})
    assert (entry["field"], entry["value"], entry["nearest"]) == (field, value, nearest)
    parse_spec({"model": "baseline", "epochs": 1})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"epochs": "ten"}, 'must be a whole number, not "ten"'),
        ({"epochs": True}, "must be a whole number, not true"),
        ({"lr": None}, "must be a number, not null"),
        ({"optimizer": {"nesterov": 3}}, "must be true or false, not 3"),
        ({"tags": "cat"}, 'must be a list, not "cat"'),
        ({"name": 3}, "must be text, not 3"),
        ({"name": ["a"]}, "must be text, not a list"),
        ({"dataset": []}, "must be an object with keys, not a list"),
        ({"optimizer": 5}, "must be an object with keys, not 5"),
        ({"early_stopping": True}, "must be an object with keys, not true"),
        ({"tags": ["a"] * 21}, "may have at most 20 entries, not 21"),
        ({"model": {"name": "cnn", "blocks": []}}, "needs at least 1 entry, not 0"),
        ({"model": {"name": "cnn"}}, "is missing"),
        ({"lr_scheduler": "multistep"}, "is missing"),
        ({"lr": 100.5}, "must be at most 100, not 100.5"),
        ({"batch_size": 0}, "must be at least 1, not 0"),
        ({"precision": "x"}, "must be 'auto', 'fp32', 'bf16' or 'fp16', not \"x\""),
    ],
    ids=range(17),
)
def test_messages_are_plain_words(body: dict[str, Any], message: str) -> None:
    [entry] = errors_of({"model": "baseline", **body})
    assert entry["message"] == message


def test_one_mistake_deep_inside_is_one_entry() -> None:
    [entry] = errors_of({"model": {"name": "cnn", "blocks": [{"convs": [{"channels": 0}]}]}})
    assert entry["field"] == "model.blocks.0.convs.0.channels"
    entries = errors_of({"model": {"name": "cnn", "blocks": [{"convs": [{"channels": 0}, {"channels": 9999}]}]}})
    assert [entry["nearest"] for entry in entries] == [1, 4096]


def test_every_mistake_is_named_at_once_up_to_fifty() -> None:
    entries = errors_of({"model": "baseline", "epochs": 0, "batch_size": 0, "lr": -1, "sed": 3})
    assert {entry["field"] for entry in entries} == {"epochs", "batch_size", "optimizer.lr", "sed"}
    many = errors_of({"model": {"name": "cnn", "blocks": [{"convs": [{"channels": 0}] * 32}] * 32}})
    assert len(many) == 51
    assert many[-1] == {"field": "body", "message": "and 974 more errors"}


@pytest.mark.parametrize(
    ("value", "message_end", "nearest"),
    [
        ("balancd", 'not "balancd"', "balanced"),
        (3, "not 3", "balanced"),
        ({}, "not an object", "balanced"),
        ([1, "a", 3], 'entry 1 is "a"', [1, 1.0, 3]),
        ([1, -2, 1e9], "entry 1 is -2", [1, 0.0, 1e6]),
        ([[1]], "entry 0 is a list", [1.0]),
    ],
    ids=range(6),
)
def test_class_weights_get_one_readable_entry(value: Any, message_end: str, nearest: Any) -> None:
    entry = error_of(class_weights=value)
    assert entry["field"] == "class_weights"
    assert entry["message"].startswith("must be null, 'balanced', or a list of one number a class")
    assert entry["message"].endswith(message_end)
    assert entry["nearest"] == nearest


def test_long_values_and_keys_are_shortened() -> None:
    entry = error_of(precision="x" * 1000)
    assert entry["value"] == "x" * 57 + "..."
    assert len(entry["message"]) < 150
    assert len(error_of(**{"y" * 1000: 1})["field"]) == 60
    for body in ({"model": "z" * 1000}, {"preset": "z" * 1000}, {"model": "baseline", "optimizer": "z" * 1000}):
        [entry] = errors_of(body)
        assert len(entry["value"]) == 60
    assert len(error_of(name="n" * 300)["nearest"]) == 200


@pytest.mark.parametrize(
    ("body", "field", "nearest"),
    [
        ({"optimizer": {"nesterov": True, "momentum": 0}}, "optimizer.nesterov", False),
        ({"lr_scheduler": {"name": "cosine", "warmup_epochs": 50}}, "lr_scheduler.warmup_epochs", 10),
        ({"lr_scheduler": {"name": "multistep", "milestones": [5, 3, 3]}}, "lr_scheduler.milestones", [3, 5]),
        ({"early_stopping": {"monitor": "val_accuracy", "mode": "min"}}, "early_stopping.mode", "max"),
        ({"augmentation": {"mixup_alpha": 1}, "class_weights": "balanced"}, "augmentation.mixup_alpha", 0),
        (
            {"model": {"blocks": [{"convs": [{"channels": 3}]}], "head": {"hidden": [9], "dropout": [0.1]}}},
            "model.head.dropout",
            [0.1, 0.0],
        ),
    ],
    ids=range(6),
)
def test_rules_between_fields_name_the_field_to_change(body: dict[str, Any], field: str, nearest: Any) -> None:
    [entry] = errors_of({"model": "baseline", **body})
    assert (entry["field"], entry["nearest"]) == (field, nearest)


def test_phases_of_resizing_ascend() -> None:
    phases = [{"from_epoch": 3, "input_size": 16}, {"from_epoch": 1, "input_size": 24}]
    assert error_of(progressive_resizing=phases)["field"] == "progressive_resizing"


def test_a_missing_name_is_guessed_from_the_keys() -> None:
    assert error_of(lr_scheduler={"step_size": 3})["nearest"] == "step"
    assert error_of(lr_scheduler={"nonsense": 3})["message"] == "is missing"
    [entry] = errors_of({"model": {"pretrained": True}})
    assert (entry["field"], entry["message"]) == ("model.name", "is missing; name a network")


def test_no_message_has_a_programmers_words_in_it() -> None:
    bodies: list[Any] = [
        {"model": "baseline", "epochs": {}, "tags": 3, "dataset": 3, "early_stopping": [], "precision": []},
        {"model": {"name": "fast_resnet", "widths": [1, 2], "whiten": "no"}},
        {"model": {"name": "cnn", "blocks": {}}},
        {"model": "baseline", "optimizer": {"name": "adam", "betas": 3}, "lr_scheduler": {"name": "step", "gamma": []}},
    ]
    jargon = ("tuple", "validation", "pydantic", "instance", "literal", "dictionary", "input should", "model_")
    for body in bodies:
        for entry in errors_of(body):
            assert not any(word in entry["message"].lower() for word in jargon), entry


@pytest.mark.parametrize("body", [None, 3, "baseline", [], [{"model": "baseline"}], True])
def test_what_is_no_object_is_refused(body: Any) -> None:
    [entry] = errors_of(body)
    assert entry["field"] == "body"
    assert entry["message"].startswith("a spec is an object with keys, not ")


def test_the_model_is_needed() -> None:
    [entry] = errors_of({})
    assert (entry["field"], entry["nearest"]) == ("model", "baseline")
    assert "resnet50" in entry["choices"]
    [entry] = errors_of({"model": 5})
    assert (entry["field"], entry["value"]) == ("model", 5)
