"""fine_tuning.freeze: patterns over the names of parameters, checked before anything is trained."""

from typing import Any

import pytest

from models.data.cifar10 import CIFAR10
from models.errors import SpecError
from models.networks.describe import describe
from models.networks.findings import spec_warnings
from models.networks.freezing import frozen_names
from models.spec.parse import parse_spec

NAMES = ["features.0.weight", "features.0.bias", "features.10.weight", "classifier.0.weight"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["features.0"], {"features.0.weight", "features.0.bias"}),
        (["features"], {"features.0.weight", "features.0.bias", "features.10.weight"}),
        (["*.bias"], {"features.0.bias"}),
        (["features.?.weight", "classifier.*"], {"features.0.weight", "classifier.0.weight"}),
        (["feature"], set()),
        ([], set()),
    ],
)
def test_a_pattern_names_parameters_or_the_layer_around_them(patterns: list[str], expected: set[str]) -> None:
    assert frozen_names(NAMES, patterns) == expected


def refusal(**wanted: Any) -> dict[str, Any]:
    with pytest.raises(SpecError) as caught:
        describe(parse_spec({"model": "baseline", **wanted}), CIFAR10)
    return caught.value.errors[0]


def test_a_pattern_that_names_nothing_is_refused_with_the_nearest_name() -> None:
    error = refusal(fine_tuning={"freeze": ["features.0", "clasifier.2"]})
    assert (error["field"], error["nearest"]) == ("fine_tuning.freeze.1", "classifier.2")


def test_something_must_be_left_to_train() -> None:
    assert "nothing would be trained" in refusal(fine_tuning={"freeze": ["*"]})["message"]
    error = refusal(fine_tuning={"freeze": ["classifier"], "freeze_backbone_epochs": 1})
    assert "trains nothing else" in error["message"]
    describe(parse_spec({"model": "baseline", "fine_tuning": {"freeze": ["features"]}}), CIFAR10)


def test_layers_frozen_at_their_random_start_are_warned_of() -> None:
    def codes(model: Any) -> list[str]:
        spec = parse_spec({"model": model, "fine_tuning": {"freeze": ["features.0"]}})
        return [finding["code"] for finding in spec_warnings(spec, CIFAR10)]

    assert "frozen-without-pretraining" in codes("baseline")
    assert "frozen-without-pretraining" not in codes({"name": "baseline", "init_from": {"experiment": 1}})
