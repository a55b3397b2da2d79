"""From a spec's `model` part to the network that is trained."""

from pathlib import Path

from torch import Tensor, nn

from models.networks.cnn import Cnn
from models.networks.fast_resnet import FastResNet, whiten
from models.networks.layers import first_convolution, head_of
from models.settings import get_settings
from models.spec.model import CnnSpec, FastResNetSpec, ZooSpec

__all__ = ["build_network", "first_convolution", "head_of", "initialise"]


def build_network(
    model: CnnSpec | ZooSpec | FastResNetSpec,
    *,
    num_classes: int,
    in_channels: int,
    size: int,
    cache_dir: Path | None = None,
) -> nn.Module:
    """Build the network for normalised images (N, in_channels, size, size); it returns logits (N, num_classes).

    Weights come from torch's global random state: seed it first. Under `torch.device("meta")` nothing is allocated and
    no pretrained weights are loaded. `size` is the side of what the network is fed (preprocessing.input_size) and
    `in_channels` its channels (preprocessing.channels).
    """
    match model:
        case CnnSpec():
            return Cnn(model, num_classes=num_classes, in_channels=in_channels, size=size)
        case FastResNetSpec():
            return FastResNet(model, num_classes=num_classes, in_channels=in_channels)
        case ZooSpec():
            from models.networks.zoo import build_zoo  # torchvision takes two seconds to import; a CNN needs none of it

            return build_zoo(
                model,
                num_classes=num_classes,
                in_channels=in_channels,
                cache_dir=cache_dir or get_settings().cache_dir,
            )


def initialise(network: nn.Module, images: Tensor) -> None:
    """What a network's start takes from the training images (N, C, H, W), normalised and resized as it will see them.

    Call it once before training, never on a resume. 5,000 images are enough. Most networks need nothing.
    """
    if isinstance(network, FastResNet) and not network.stem.weight.requires_grad:
        whiten(network.stem, images)
