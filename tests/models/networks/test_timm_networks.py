"""timm's networks by name, where timm is installed; a word where it is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.data.cifar10 import CIFAR10
from models.data.fashion_mnist import FASHION_MNIST
from models.errors import DataUnavailable, SpecError
from models.networks import timm_networks
from models.networks.architectures import architectures, libraries
from models.networks.build import build_network
from models.networks.describe import describe
from models.networks.inputs import preprocessing_for
from models.networks.layers import head_of
from models.spec.parse import load_spec, parse_spec
from models.torchvision_compat import torchvision  # noqa: F401  (timm imports it)

timm = pytest.importorskip("timm", reason="timm is not installed (the extra epochal[timm])")

TINY = "timm/test_resnet"
"""Made for tests: half a million parameters."""


def refusal(model: Any) -> dict[str, Any]:
    with pytest.raises(SpecError) as caught:
        describe(parse_spec({"model": model}), CIFAR10)
    return caught.value.errors[0]


def test_a_network_is_named_described_and_stored_by_its_name() -> None:
    spec = parse_spec({"model": TINY, "dataset": "fashion-mnist"})
    assert load_spec(spec.as_json()) == spec
    summary = describe(spec, FASHION_MNIST)
    assert summary.layers[0]["kernel_shape"] is not None
    assert summary.layers[0]["kernel_shape"][1] == 1  # one channel
    with torch.device("meta"):
        network = build_network(spec.model, num_classes=10, in_channels=1, size=28)
    assert head_of(network).weight.shape[0] == 10


@pytest.mark.parametrize(
    ("model", "field", "nearest"),
    [
        ("timm/resnet18q", "model.name", "timm/resnet18"),
        ({"name": "timm/inception_v3", "input_size": 32}, "model.input_size", 299),
    ],
)
def test_what_timm_does_not_have_or_take_names_the_nearest(model: Any, field: str, nearest: Any) -> None:
    error = refusal(model)
    assert (error["field"], error["nearest"]) == (field, nearest)


@pytest.mark.parametrize("name", ["timm/", "timm/../../etc/passwd", "timm/a b", "timm/" + "x" * 200])
def test_a_name_that_could_be_none_is_refused(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"model": name})
    assert caught.value.errors[0]["field"] == "model.name"


def test_preprocessing_is_that_of_its_weights() -> None:
    config = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    seen = preprocessing_for(parse_spec({"model": {"name": "timm/vit_tiny_patch16_224", "pretrained": True}}), CIFAR10)
    assert (seen.mean, seen.std, seen.input_size) == (tuple(config.mean), tuple(config.std), 224)
    fresh = preprocessing_for(parse_spec({"model": TINY}), CIFAR10)
    assert (fresh.mean, fresh.input_size) == (CIFAR10.mean, 32)


def test_weights_come_from_a_file_that_was_provided(tmp_path: Path) -> None:
    name = TINY.removeprefix("timm/")
    torch.manual_seed(1)
    source = timm.create_model(name, pretrained=False)
    file = timm_networks.weights_file(name, tmp_path)
    file.parent.mkdir()
    save_file(source.state_dict(), file)
    spec = parse_spec({"model": {"name": TINY, "pretrained": True}})
    torch.manual_seed(2)
    network = build_network(spec.model, num_classes=10, in_channels=3, size=64, cache_dir=tmp_path)
    loaded, own = network.state_dict(), source.state_dict()
    body = [key for key in own if own[key].shape == loaded[key].shape]
    assert len(own) - len(body) == 2  # the head's weight and bias
    assert all(torch.equal(own[key], loaded[key]) for key in body)


def test_weights_that_cannot_be_had_say_which_file_to_provide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **options: Any) -> None:
        raise OSError("huggingface.co does not answer")

    monkeypatch.setattr(timm.models, "load_pretrained", offline)
    spec = parse_spec({"model": {"name": TINY, "pretrained": True}})
    with pytest.raises(DataUnavailable, match="does not answer") as caught:
        build_network(spec.model, num_classes=10, in_channels=3, size=64, cache_dir=tmp_path)
    assert str(timm_networks.weights_file("test_resnet", tmp_path)) in str(caught.value.fix)


def test_the_list_has_every_name_and_builds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", None)
    names = {entry.name for entry in architectures("timm")}
    assert TINY in names
    assert len(names) > 1000
    assert not any(entry.name.startswith("timm/") for entry in architectures())
    assert [library.family for library in libraries() if library.installed] == ["epochal", "torchvision", "timm"]


def test_where_timm_is_not_installed_its_networks_are_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timm_networks, "is_installed", lambda: False)
    timm_networks._known.cache_clear()
    with pytest.raises(SpecError) as caught:
        describe(parse_spec({"model": "timm/resnet10t"}), CIFAR10)
    assert caught.value.errors[0]["field"] == "model.name"
    assert "pip install timm" in str(caught.value.fix)
