"""Builds the network that a spec's `model` part describes."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from models.networks.family import family_of
from models.settings import get_settings
from models.spec.model import NetworkSpec


def build_network(
    model: NetworkSpec,
    *,
    num_classes: int,
    in_channels: int,
    size: int,
    cache_dir: Path | None = None,
) -> nn.Module:
    """Build the network for normalised images (N, in_channels, size, size); it returns logits (N, num_classes).

    Weights come from torch's global random state: seed it first. Under `torch.device("meta")` nothing is allocated and
    no pretrained weights are loaded. `size` is the side of what the network is fed (Preprocessing.input_size) and
    `in_channels` its channels (Preprocessing.channels).
    """
    return family_of(model).build(
        model,
        num_classes=num_classes,
        in_channels=in_channels,
        size=size,
        cache_dir=cache_dir or get_settings().cache_dir,
    )


def initialise(model: NetworkSpec, network: nn.Module, images: Callable[[], Tensor]) -> None:
    """Initialise the layers whose start depends on the training images.

    `images()` gives the first of them (N, C, H, W), normalised and resized as the network will see them; it is called
    by families that need them. Call this once before training, never on a resume. 5,000 images are enough.
    """
    family_of(model).initialise(network, images)
