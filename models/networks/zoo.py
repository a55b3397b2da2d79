"""Networks of torchvision with a head for the dataset's classes."""

from pathlib import Path

import torch
from torch import nn

from models.networks.layers import first_convolution, head_name
from models.networks.pretrained import load_pretrained
from models.spec.model import ZooName, ZooSpec
from models.torchvision_compat import torchvision


def build_zoo(spec: ZooSpec, *, num_classes: int, in_channels: int, cache_dir: Path) -> nn.Module:
    """The network with its own initialisation, or with ImageNet weights in everything but the head.

    ImageNet weights take three channels: gray images are repeated to three (see models.networks.preprocessing).
    """
    if spec.pretrained and in_channels != 3:
        raise ValueError(f"pretrained networks take 3 channels, not {in_channels}; use preprocessing.channels")
    builder = getattr(torchvision.models, spec.name.value)
    network: nn.Module = builder(weights=None, num_classes=num_classes)
    if in_channels != 3:
        _change_input_channels(network, in_channels)
    if spec.pretrained and not next(network.parameters()).is_meta:
        _load_backbone(network, spec.name, cache_dir)
    return network


def _load_backbone(network: nn.Module, name: ZooName, cache_dir: Path) -> None:
    head = head_name(network)
    weights = {key: value for key, value in load_pretrained(name, cache_dir).items() if not key.startswith(f"{head}.")}
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
