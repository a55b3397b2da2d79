"""Networks of torchvision with a head for the dataset's classes."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.data.info import DatasetInfo
from models.errors import SpecError
from models.networks.architecture import Architecture
from models.networks.family import Family, Normalisation, Rates
from models.networks.layers import first_convolution, head_name
from models.networks.torchvision_table import ARCHITECTURES, HALF, PATCHES, WINDOWS
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from models.spec.model import ZooSpec
from models.spec.torchvision_names import ZooName

IMAGENET_CLASSES = 1000

PRETRAINED_SGD_RATES = (1e-5, 0.05)  # higher ones lose what the weights know
PRETRAINED_ADAPTIVE_RATES = (1e-7, 2e-3)

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""Heads that GoogLeNet and Inception have in training at ImageNet; a network here returns one tensor of logits."""

_ENTRIES = {entry.name: entry for entry in ARCHITECTURES}


def build_zoo(spec: ZooSpec, *, num_classes: int, in_channels: int, size: int, cache_dir: Path) -> nn.Module:
    """The network with its own initialisation, or with ImageNet weights in everything but (unless kept) the head.

    ImageNet weights take three channels: gray images are repeated to three (see ZooFamily.normalisation).
    """
    if spec.pretrained and in_channels != 3:
        raise ValueError(f"pretrained networks take 3 channels, not {in_channels}; use Preprocessing.channels")
    from models.torchvision_compat import (
        torchvision,  # takes two seconds to import: a list of networks needs none of it
    )

    _keep_widths_off_the_meta_device()
    builder = getattr(torchvision.models, spec.name.value)
    outputs = IMAGENET_CLASSES if spec.keep_head else num_classes
    if outputs < num_classes:
        raise ValueError(f"ImageNet's head has {outputs} outputs, and there are {num_classes} classes")
    network: nn.Module = builder(weights=None, num_classes=outputs, **_options(spec, size))
    if isinstance(network, torchvision.models.MNASNet):
        # its own reads a version that only torch's files carry, to convert those of 2019
        network._load_from_state_dict = nn.Module._load_from_state_dict.__get__(network)
    if in_channels != 3:
        _change_input_channels(network, in_channels)
    if spec.pretrained and not next(network.parameters()).is_meta:
        _load_weights(network, spec.name, cache_dir, with_head=spec.keep_head)
    return network


@lru_cache(maxsize=1)
def _keep_widths_off_the_meta_device() -> None:
    """RegNet computes the widths of its blocks with tensors, which have no values on the meta device."""
    from torchvision.models.regnet import BlockParams

    original = BlockParams.from_init_params

    def on_cpu(**options: Any) -> Any:
        with torch.device("cpu"):
            return original(**options)

    BlockParams.from_init_params = on_cpu


def _options(spec: ZooSpec, size: int) -> dict[str, Any]:
    """A builder's arguments beside the number of classes."""
    if spec.name in (ZooName.GOOGLENET, ZooName.INCEPTION_V3):
        # the weights of these two come from TensorFlow, whose input was scaled otherwise
        return {"aux_logits": False, "init_weights": not spec.pretrained, "transform_input": spec.pretrained}
    if spec.name in PATCHES:
        return {"image_size": size}
    return {"input_size": (size, size)} if spec.name in WINDOWS else {}


def _load_weights(network: nn.Module, name: ZooName, cache_dir: Path, *, with_head: bool) -> None:
    from models.networks.pretrained import load_pretrained  # torchvision again

    head = head_name(network)
    own = network.state_dict()
    kept = {
        key: tensor
        for key, tensor in load_pretrained(name, cache_dir).items()
        if not key.startswith(AUXILIARY) and (with_head or not key.startswith(f"{head}."))
    }
    weights = {
        key: _resized(tensor, own[key]) if key.endswith("pos_embedding") else tensor for key, tensor in kept.items()
    }
    missing, unexpected = network.load_state_dict(weights, strict=False)
    wrong = [key for key in missing if not key.startswith(f"{head}.")] + unexpected
    if wrong:
        raise RuntimeError(f"the ImageNet weights of {name} do not fit torchvision's network: {wrong[:5]}")


def _resized(embedding: Tensor, own: Tensor) -> Tensor:
    """A vision transformer's position embeddings (1, 1 + n * n, dim) for another number of patches.

    As torchvision's interpolate_embeddings: the class token's stays, the others are interpolated as an image.
    """
    if embedding.shape == own.shape:
        return embedding
    token, grid = embedding[:, :1], embedding[:, 1:]
    side, wanted = round(grid.shape[1] ** 0.5), round((own.shape[1] - 1) ** 0.5)
    image = grid.transpose(1, 2).reshape(1, -1, side, side)
    image = nn.functional.interpolate(image, (wanted, wanted), mode="bicubic", align_corners=True)
    return torch.cat([token, image.flatten(2).transpose(1, 2)], dim=1)


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
        return build_zoo(model, num_classes=num_classes, in_channels=in_channels, size=size, cache_dir=cache_dir)

    def architectures(self) -> list[Architecture]:
        """All of them."""
        return list(ARCHITECTURES)

    def normalisation(self, model: ZooSpec, info: DatasetInfo) -> Normalisation:
        """Three channels and the mean and deviation of its weights' own transforms; the dataset's own without them."""
        if not model.pretrained:
            return super().normalisation(model, info)
        if model.name in HALF:
            return Normalisation(3, (0.5,) * 3, (0.5,) * 3)
        return Normalisation(3, IMAGENET_MEAN, IMAGENET_STD)

    def input_size(self, model: ZooSpec, info: DatasetInfo) -> int:
        """A pretrained vision transformer's own size, which its position embeddings are for; else the default."""
        own = _ENTRIES[model.name].pretrained_size
        return model.input_size or (own if model.pretrained and model.name in PATCHES and own else info.size)

    def fits_one_size(self, model: ZooSpec) -> bool:
        """Transformers with a fixed number of patches, or with windows that must come out even."""
        return model.name in PATCHES or model.name in WINDOWS

    def minimum_size(self, model: ZooSpec) -> int:
        """Below it the last poolings and strides leave nothing."""
        return _ENTRIES[model.name].minimum_size

    def useful_size(self, model: ZooSpec) -> int:
        """Two to four pixels are left to each side."""
        return _ENTRIES[model.name].useful_size

    def check_size(self, model: ZooSpec, *, num_classes: int, in_channels: int, size: int) -> None:
        """A transformer's patches and windows must divide its input."""
        super().check_size(model, num_classes=num_classes, in_channels=in_channels, size=size)
        step = PATCHES.get(model.name) or WINDOWS.get(model.name) or 1
        if size % step:
            nearest = max(step, min(512 // step, round(size / step)) * step)
            text = f"{model.name} takes inputs of a multiple of {step} pixels, not {size}"
            raise SpecError(
                [{"field": "model.input_size", "message": text, "value": model.input_size, "nearest": nearest}]
            )

    def is_normed(self, model: ZooSpec) -> bool:
        """All but SqueezeNets, AlexNet and plain VGGs have normalisation of some kind."""
        plain = model.name.startswith("vgg") and not model.name.endswith("_bn")
        return not (plain or model.name.startswith(("squeezenet", "alexnet")))

    def usual_sgd_rates(self, model: ZooSpec) -> Rates:
        """Lower for pretrained weights."""
        return PRETRAINED_SGD_RATES if model.pretrained else super().usual_sgd_rates(model)

    def usual_adaptive_rates(self, model: ZooSpec) -> Rates:
        """Lower for pretrained weights."""
        return PRETRAINED_ADAPTIVE_RATES if model.pretrained else super().usual_adaptive_rates(model)


FAMILY = ZooFamily()
