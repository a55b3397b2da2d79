"""The networks that are trained: the report's parameter counts, heads for the dataset, seeds, first convolutions."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from models.networks.build import build_network, initialise
from models.networks.fast_resnet import FastResNet
from models.networks.layers import first_convolution, head_of
from models.spec.model import FastResNetSpec, ZooName, ZooSpec
from models.spec.parse import parse_spec
from tests.models.networks.specs import ZOO


def build(model: object, *, num_classes: int = 10, in_channels: int = 3, size: int = 32) -> nn.Module:
    spec = parse_spec({"model": model})
    return build_network(spec.model, num_classes=num_classes, in_channels=in_channels, size=size)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return outputs * (inputs * kernel**2 + 1)


def linear(*sizes: int) -> int:
    return sum((a + 1) * b for a, b in pairwise(sizes))


THREE_BLOCKS = (
    conv(3, 32, 3) + conv(32, 64, 3) + conv(64, 128, 3) + conv(128, 128, 3) + conv(128, 256, 3) + conv(256, 256, 3)
) + linear(4096, 1024, 512, 10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("baseline", conv(3, 10, 5) + conv(10, 20, 5) + linear(500, 120, 84, 10)),
        ("narrow", conv(3, 6, 5) + conv(6, 16, 5) + linear(400, 120, 84, 10)),
        ("wide", conv(3, 32, 5) + conv(32, 64, 5) + linear(1600, 124, 84, 10)),
        ("three_conv", conv(3, 16, 3) + conv(16, 32, 3) + conv(32, 64, 3) + linear(1024, 512, 64, 10)),
        ("three_blocks", THREE_BLOCKS),
        ("three_blocks_dropout", THREE_BLOCKS),
        ("three_blocks_batch_norm", THREE_BLOCKS + 2 * (32 + 128 + 256)),
    ],
)
def test_the_reports_networks_have_the_reports_parameters(name: str, expected: int) -> None:
    assert count(build(name)) == expected


def test_the_dropout_network_drops_where_the_report_does() -> None:
    network = build("three_blocks_dropout")
    dropouts = [
        (name, module.p) for name, module in network.named_modules() if isinstance(module, nn.Dropout | nn.Dropout2d)
    ]
    assert dropouts == [("features.10", 0.05), ("classifier.0", 0.1), ("classifier.5", 0.1)]
    names = [type(module).__name__ for module in network.classifier]  # type: ignore[union-attr]
    assert names == ["Dropout", "Linear", "ReLU", "Linear", "ReLU", "Dropout", "Linear"]


def test_batch_norm_stands_between_a_blocks_first_convolution_and_its_relu() -> None:
    names = [type(module).__name__ for module in build("three_blocks_batch_norm").features]  # type: ignore[union-attr]
    assert names[:6] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "MaxPool2d", "ReLU"]


def test_pooling_before_relu_computes_what_relu_before_pooling_does() -> None:
    torch.manual_seed(0)
    ours = build("baseline").double()
    layers = list(ours.features)  # type: ignore[arg-type]
    written = nn.Sequential(*(layers[place] for place in (0, 2, 1, 3, 5, 4)), nn.Flatten(), *ours.classifier)  # type: ignore[misc]
    images = torch.randn(4, 3, 32, 32, dtype=torch.double)
    gradients = []
    for network in (ours, written):
        ours.zero_grad()
        network(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters() if parameter.grad is not None])
    assert torch.equal(ours(images), written(images))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", [*ZOO, "fast_resnet", "baseline"])
def test_every_network_gives_a_logit_a_class(name: str) -> None:
    num_classes, in_channels, size = 7, 1, ZOO.get(name, 32)
    with torch.device("meta"), torch.no_grad():  # shapes only: the largest of them would take seconds
        network = build({"name": name}, num_classes=num_classes, in_channels=in_channels, size=size)
        logits = network(torch.empty(2, in_channels, size, size))
    assert logits.shape == (2, num_classes)
    head = head_of(network)
    assert head.weight.shape[0] == num_classes
    _, convolution = first_convolution(network)
    assert convolution.in_channels == in_channels


def test_the_same_seed_builds_the_same_weights_and_another_seed_others() -> None:
    def weights(seed: int, name: str) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in build(name).parameters()])

    for name in ("baseline", "fast_resnet", "squeezenet1_1"):
        assert torch.equal(weights(1, name), weights(1, name))
        assert not torch.equal(weights(1, name), weights(2, name))


def test_first_convolutions_have_the_names_that_people_ask_for() -> None:
    with torch.device("meta"):
        found = {name: first_convolution(build(name))[0] for name in ("baseline", "squeezenet1_1", "resnet18")}
    assert found == {"baseline": "features.0", "squeezenet1_1": "features.0", "resnet18": "conv1"}


def test_a_network_without_layers_with_weights_has_neither_head_nor_first_convolution() -> None:
    with pytest.raises(ValueError, match="has no layer"):
        head_of(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="has no convolution"):
        first_convolution(nn.Sequential(nn.Linear(2, 2)))


def test_one_channel_is_treated_as_its_three_channel_copy_at_the_start() -> None:
    spec = ZooSpec(name=ZooName.RESNET18)
    torch.manual_seed(0)
    gray = build_network(spec, num_classes=10, in_channels=1, size=32).eval()
    torch.manual_seed(0)
    color = build_network(spec, num_classes=10, in_channels=3, size=32).eval()
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(gray(images), color(images.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


def test_pretrained_networks_want_three_channels() -> None:
    spec = ZooSpec(name=ZooName.SQUEEZENET1_1, pretrained=True)
    with pytest.raises(ValueError, match="3 channels"):
        build_network(spec, num_classes=10, in_channels=1, size=32)


def test_on_the_meta_device_no_weights_are_loaded() -> None:
    spec = ZooSpec(name=ZooName.RESNET50, pretrained=True)  # weights that no test machine need have
    with torch.device("meta"):
        network = build_network(spec, num_classes=10, in_channels=3, size=64)
    assert all(parameter.is_meta for parameter in network.parameters())


class TestFastResNet:
    """Its first convolution whitens; its stages begin as the identity."""

    def make(self, **changes: object) -> FastResNet:
        torch.manual_seed(0)
        spec = FastResNetSpec.model_validate({"name": "fast_resnet", **changes})
        network = build_network(spec, num_classes=10, in_channels=3, size=32)
        assert isinstance(network, FastResNet)
        return network

    def images(self) -> torch.Tensor:
        noise = torch.randn(300, 3, 34, 34, generator=torch.Generator().manual_seed(0))
        # neighbouring pixels and channels of real images go together
        smooth = nn.functional.avg_pool2d(noise + noise.mean(1, keepdim=True), 3, stride=1)
        return smooth / smooth.std()

    def test_after_initialise_the_filters_outputs_are_uncorrelated_with_variance_one(self) -> None:
        network, images = self.make(), self.images()
        initialise(FastResNetSpec(), network, lambda: images)
        outputs = network.stem(images)[:, :12].detach().double()
        flat = outputs.permute(1, 0, 2, 3).flatten(1)
        second_moments = flat @ flat.T / flat.shape[1]
        off_diagonal = second_moments - torch.diag(second_moments.diag())
        assert off_diagonal.abs().max() < 1e-4
        # a direction whose variance is near the floor stays below one
        assert second_moments.diag().max() < 1.001
        assert second_moments.diag()[:6].min() > 0.9

    def test_filters_come_in_pairs_of_opposite_sign_and_are_not_trained(self) -> None:
        network = self.make()
        initialise(FastResNetSpec(), network, self.images)
        assert torch.equal(network.stem.weight[:12], -network.stem.weight[12:])
        assert not network.stem.weight.requires_grad
        assert network.stem.bias is not None
        assert network.stem.bias.requires_grad

    def test_whitening_is_the_same_whatever_was_drawn_before(self) -> None:
        networks = [self.make(), self.make()]
        for network in networks:
            torch.rand(5)
            initialise(FastResNetSpec(), network, self.images)
        assert torch.equal(networks[0].stem.weight, networks[1].stem.weight)

    def test_without_whitening_the_first_convolution_is_trained_and_left_alone(self) -> None:
        network = self.make(whiten=False)
        before = network.stem.weight.clone()
        initialise(FastResNetSpec(), network, self.images)
        assert torch.equal(network.stem.weight, before)
        assert network.stem.weight.requires_grad

    def test_convolutions_start_as_the_identity_on_their_first_channels(self) -> None:
        network = self.make(widths=(16, 32, 32))
        for stage in network.stages:
            for convolution in (stage.conv1, stage.conv2):
                images = torch.randn(1, convolution.in_channels, 8, 8)
                shared = min(convolution.in_channels, convolution.out_channels)
                torch.testing.assert_close(convolution(images)[:, :shared], images[:, :shared])

    def test_other_networks_take_nothing_from_the_images(self) -> None:
        network = build("baseline")
        before = [parameter.clone() for parameter in network.parameters()]
        initialise(parse_spec({"model": "baseline"}).model, network, lambda: torch.randn(4, 3, 32, 32))
        assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
