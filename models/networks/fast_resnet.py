"""A small residual network designed for high accuracy after a few epochs on small images.

The ingredients, each with where it comes from:
- The first convolution whitens 2x2 patches of the training images and is not trained (Page 2019, "How to train your
  ResNet 8"; Balsam 2023, hlb-CIFAR10; Jordan 2024, airbench, arXiv 2404.00498). Both signs of each eigenvector are
  kept, so that the activation that follows loses nothing. Its bias is trained.
- Max pooling stands before the batch norm, so that the norm sees what the activation will see (hlb-CIFAR10).
- Convolutions start as the identity on their first channels (Dirac), so that the signal reaches the head from the first
  step (airbench).
- Batch norms keep a fixed scale and train their bias; their running averages move fast, because training is short.
- GELU; a residual connection around each stage's second convolution; global max pooling; a small factor on the logits.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from models.networks import tracing
from models.networks.architecture import Architecture
from models.networks.cost import FLOAT_BYTES
from models.networks.family import Family, Rates
from models.spec.model import FastResNetSpec

WHITENING_KERNEL = 2
WHITENING_IMAGES = 5000  # the covariance of their 4.8 million patches is stable to three digits
WHITENING_EPS = 5e-4  # keeps directions without variance from being blown up
NORM_MOMENTUM = 0.4


class FastResNet(nn.Module):
    """stem (whitening), three stages that each halve the image, global max pooling, head."""

    def __init__(self, spec: FastResNetSpec, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.logit_scale = spec.logit_scale
        num_filters = 2 * in_channels * WHITENING_KERNEL**2
        self.stem = nn.Conv2d(in_channels, num_filters, WHITENING_KERNEL)
        self.stem.weight.requires_grad_(not spec.whiten)
        self.activation = nn.GELU()
        widths = (num_filters, *spec.widths)
        self.stages = nn.Sequential(*(Stage(widths[i], widths[i + 1]) for i in range(3)))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        features = self.stages(self.activation(self.stem(images)))
        return self.head(features.amax(dim=(2, 3))) * self.logit_scale  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Convolution, pooling, norm, GELU; then a residual convolution, norm, GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = _norm(out_channels)
        self.activation1 = nn.GELU()
        self.conv2 = _convolution(out_channels, out_channels)
        self.norm2 = _norm(out_channels)
        self.activation2 = nn.GELU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Half the height and width, `out_channels` channels."""
        inputs = self.activation1(self.norm1(self.pool(self.conv1(inputs))))
        return inputs + self.activation2(self.norm2(self.conv2(inputs)))  # type: ignore[no-any-return]


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding="same", bias=False)
    nn.init.dirac_(convolution.weight.data[:in_channels])
    return convolution


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=NORM_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


@torch.no_grad()
def whiten(stem: nn.Conv2d, images: Tensor) -> None:
    """Set the stem's weights from normalised training images (N, C, H, W), so that its outputs are uncorrelated.

    Its filters are the eigenvectors of the covariance of the images' patches, each divided by the square root of its
    eigenvalue, followed by the same with the opposite sign.
    """
    # 64-bit: the smallest eigenvalues are a thousandth of the largest
    sample = images[:WHITENING_IMAGES].double()
    patches = sample.unfold(2, WHITENING_KERNEL, 1).unfold(3, WHITENING_KERNEL, 1)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, stem.weight[0].numel())
    covariance = patches.T @ patches / len(patches)
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    filters = (eigenvectors / torch.sqrt(eigenvalues + WHITENING_EPS)).T.flip(0).reshape(-1, *stem.weight.shape[1:])
    # an eigenvector's sign is arbitrary: its largest entry is made positive, so that libraries agree
    flat = filters.flatten(1)
    signs = torch.sign(flat.gather(1, flat.abs().argmax(1, keepdim=True)))
    filters = filters * signs[:, :, None, None]
    stem.weight.copy_(torch.cat([filters, -filters]))
    if stem.bias is not None:
        stem.bias.zero_()


class FastResNetFamily(Family[FastResNetSpec]):
    """One network in several widths."""

    def build(
        self, model: FastResNetSpec, *, num_classes: int, in_channels: int, size: int, cache_dir: Path
    ) -> nn.Module:
        """The network, with convolutions that start as the identity."""
        return FastResNet(model, num_classes=num_classes, in_channels=in_channels)

    def architectures(self) -> list[Architecture]:
        """The network in its default widths."""
        default = FastResNetSpec()
        return [
            Architecture(
                name=default.name,
                title="A small residual network for little time",
                num_parameters=498_104,
                minimum_size=self.minimum_size(default),
                useful_size=self.useful_size(default),
                pretrained=False,
                reference="arXiv:2404.00498 (airbench), hlb-CIFAR10; see models/networks/fast_resnet.py",
            )
        ]

    def initialise(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Whiten the first convolution, unless it is trained."""
        assert isinstance(network, FastResNet)
        if not network.stem.weight.requires_grad:
            whiten(network.stem, images())

    def minimum_size(self, model: FastResNetSpec) -> int:
        """A pixel is left after a convolution of 2x2 and three halvings."""
        return 9

    def useful_size(self, model: FastResNetSpec) -> int:
        """Three pixels are left to each side."""
        return 24

    def trace(self, network: nn.Module, in_channels: int, size: int, record: tracing.Record) -> None:
        """Layer by layer. A residual sum is not a layer; its output is recorded too."""
        assert isinstance(network, FastResNet)
        tracing.follow(network, in_channels, size, record)
        for stage in range(len(network.stages)):
            summed = record.layers[f"stages.{stage}.activation2"]["output_shape"]
            record.kept.append(math.prod(summed) * FLOAT_BYTES)

    def is_normed(self, model: FastResNetSpec) -> bool:
        """In every stage."""
        return True

    def usual_sgd_rates(self, model: FastResNetSpec) -> Rates:
        """High ones: its logits are scaled down, and its gradients with them."""
        return (1e-3, 20.0)


FAMILY = FastResNetFamily()
