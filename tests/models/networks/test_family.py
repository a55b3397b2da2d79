"""A family is a spec class with an entry in FAMILIES, and a module: all it takes to name it, check it and train it.

This file is the module of a family of its own.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from models.data.cifar10 import CIFAR10
from models.errors import SpecError
from models.networks.architectures import architectures
from models.networks.build import build_network
from models.networks.describe import describe
from models.networks.family import Architecture, Family, Normalisation, families, family_of
from models.networks.findings import spec_warnings
from models.networks.inputs import preprocessing_for
from models.preprocessing import Preprocessing
from models.spec import model as registry
from models.spec.experiment import ExperimentSpec
from models.spec.model import InputSize, NetworkSpec
from models.spec.owners import owners
from models.spec.parse import load_model, load_spec, parse_spec
from service.predictions.predictor import Served
from service.predictions.weights import Weights
from tests.worker.training.tiny import images
from worker.training.engine import train
from worker.training.sink import MemorySink


class StripesSpec(NetworkSpec):
    """A network that looks at columns."""

    network_module: ClassVar[str] = __name__

    name: Literal["stripes"] = "stripes"
    filters: int = Field(default=4, ge=1, le=64)
    input_size: InputSize | None = None


class Stripes(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, filters: int) -> None:
        super().__init__()
        self.columns = nn.Conv2d(in_channels, filters, (7, 1))
        self.head = nn.Linear(filters, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.relu(self.columns(inputs)).mean((2, 3)))
        return outputs


class StripesFamily(Family[StripesSpec]):
    def build(self, model: StripesSpec, *, num_classes: int, in_channels: int, size: int, cache_dir: Path) -> nn.Module:
        return Stripes(num_classes, in_channels, model.filters)

    def architectures(self) -> list[Architecture]:
        return [Architecture("stripes", "Columns", 138, 10, 16, False, "a test")]

    def initialise(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        assert isinstance(network, Stripes)
        with torch.no_grad():
            network.head.bias[: images().shape[1]] = images().mean((0, 2, 3))

    def normalisation(self, model: StripesSpec, info: Any) -> Normalisation:
        return Normalisation(info.channels, (0.25,) * info.channels, (0.5,) * info.channels)

    def minimum_size(self, model: StripesSpec) -> int:
        return 10

    def useful_size(self, model: StripesSpec) -> int:
        return 16

    def usual_sgd_rates(self, model: StripesSpec) -> tuple[float, float]:
        return (0.001, 0.01)


FAMILY = StripesFamily()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.FAMILIES, "stripes", StripesSpec)
    yield
    owners.cache_clear()  # where a message named a field's owner, its fields were remembered


def test_it_is_named_and_its_spec_is_complete_and_read_back() -> None:
    spec = parse_spec({"model": {"name": "stripes", "filters": 2}})
    assert spec.model == StripesSpec(filters=2)
    assert spec.as_json()["model"] == {"name": "stripes", "filters": 2, "input_size": None}
    assert load_spec(spec.as_json()) == spec == parse_spec(spec.as_json())
    assert load_model(spec.as_json()["model"]) == spec.model
    assert parse_spec({"model": "stripes"}).model == StripesSpec()


@pytest.mark.parametrize(
    ("model", "field", "nearest"),
    [
        ({"name": "stripes", "filters": 0}, "model.filters", 1),
        ({"name": "stripes", "filterz": 2}, "model.filterz", "filters"),
        ({"name": "stripe"}, "model.name", "stripes"),
    ],
)
def test_errors_name_its_fields(model: dict[str, Any], field: str, nearest: Any) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"model": model})
    [entry] = caught.value.errors
    assert (entry["field"], entry["nearest"]) == (field, nearest)


def test_it_is_in_the_schema_and_in_the_list_of_networks() -> None:
    assert "StripesSpec" in ExperimentSpec.model_json_schema()["$defs"]
    assert next(entry for entry in architectures() if entry.name == "stripes").minimum_size == 10


def test_it_is_inspected_and_checked_by_what_it_says_of_itself() -> None:
    summary = describe(parse_spec({"model": "stripes"}), CIFAR10)
    assert [layer["name"] for layer in summary.layers] == ["columns", "head"]
    assert summary.num_parameters == 4 * (7 * 3 + 1) + 10 * (4 + 1)
    assert summary.macs_per_image == 4 * 26 * 32 * 21 + 4 * 10
    with pytest.raises(SpecError) as caught:
        describe(parse_spec({"model": {"name": "stripes", "input_size": 8}}), CIFAR10)
    assert caught.value.errors[0]["nearest"] == 10
    found = spec_warnings(parse_spec({"model": {"name": "stripes", "input_size": 12}, "lr": 0.1}), CIFAR10)
    assert {"small-input", "high-learning-rate"} <= {finding["code"] for finding in found}
    assert not spec_warnings(parse_spec({"model": "stripes", "lr": 0.005}), CIFAR10)


def test_it_is_trained_and_predicts(tmp_path: Path) -> None:
    spec = parse_spec({"model": "stripes", "epochs": 2, "lr": 0.005})
    sink = MemorySink()
    outcome = train(spec, images(), sink, tmp_path, device="cpu")
    assert (outcome.status, len(sink.epochs)) == ("completed", 2)
    seen = preprocessing_for(spec, images().info)
    assert (seen.mean, seen.std) == ((0.25,) * 3, (0.5,) * 3)
    weights = Weights(1, "best", 2, "", load_model(spec.as_json()["model"]), Preprocessing.from_json(seen.to_json()))
    graph = (tmp_path / "graph.onnx").read_bytes()
    served = Served(weights, (tmp_path / "weights-best.safetensors").read_bytes(), lambda _: graph)
    [answer] = served.judge(list(images().test_images[:1]))
    assert answer.probabilities.sum() == pytest.approx(1)
    assert np.isfinite(answer.probabilities).all()


def test_every_family_is_complete() -> None:
    for name, cls in registry.FAMILIES.items():
        fields = cls.model_fields
        assert {"name", "input_size"} <= fields.keys(), name
    assert {type(family) for family in families()} >= {StripesFamily}
    for entry in architectures():
        model = parse_spec({"model": entry.name}).model
        family = family_of(model)
        low, high = family.usual_sgd_rates(model)
        assert 0 < low < high
        assert family.minimum_size(model) <= family.useful_size(model)
        if entry.name in ("stripes", "baseline", "fast_resnet", "resnet18"):
            with torch.device("meta"):
                assert build_network(model, num_classes=10, in_channels=3, size=64)
