"""The description of a spec that has not been trained."""

import json

import pytest

from models.data.catalogue import get_dataset
from models.errors import SpecError
from models.spec.parse import parse_spec
from service.catalogue.describe import architectures, describe_spec

CIFAR10 = get_dataset("cifar10")


def test_layers_warnings_and_size_of_a_spec() -> None:
    found = describe_spec(parse_spec({"preset": "lab-report/1"}), CIFAR10)
    assert [layer["kernel_shape"] for layer in found.layers if layer["kernel_shape"]] == [[10, 3, 5, 5], [20, 10, 5, 5]]
    assert found.size["num_parameters"] == 76_914
    json.dumps([found.layers, found.warnings, found.size])


def test_what_is_odd_is_warned_of_and_what_is_impossible_refused() -> None:
    found = describe_spec(parse_spec({"model": "baseline", "lr": 50}), CIFAR10)
    assert {warning["severity"] for warning in found.warnings}
    with pytest.raises(SpecError):
        describe_spec(parse_spec({"model": {"blocks": [{"convs": [{"channels": 3, "kernel_size": 31}]}] * 3}}), CIFAR10)


def test_architectures_are_listed() -> None:
    assert {"baseline", "squeezenet1_1"} <= {entry.name for entry in architectures()}
