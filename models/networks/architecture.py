"""One network as GET /architectures lists it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A network that a spec can name. `num_parameters` counts ten classes and images of three channels.

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
    pretrained_sources: tuple[str, ...] = ()
