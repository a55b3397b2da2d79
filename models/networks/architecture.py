"""Types of the networks and libraries that GET /architectures lists."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A network that a spec can name. `num_parameters` counts ten classes and images of three channels.

    It is None for networks that would have to be built to count them. `minimum_size` is the smallest input that it can
    be built for. Below `useful_size` its last feature map shrinks to a pixel, or to what ImageNet weights have never
    seen, and accuracy suffers. `pretrained_size` is the input that its ImageNet weights were measured at.
    """

    name: str
    title: str
    num_parameters: int | None
    minimum_size: int
    useful_size: int
    pretrained: bool
    reference: str
    pretrained_sources: tuple[str, ...] = ()
    pretrained_size: int | None = None


@dataclass(frozen=True)
class Library:
    """A family of networks: whether it is installed, and how many it has; None where counting would load it."""

    family: str
    title: str
    installed: bool
    num_networks: int | None = None
