"""One layer of a network as it is described, stored and sent."""

from typing import TypedDict


class Layer(TypedDict):
    """A layer: its place in the network and its shapes, without the batch."""

    name: str
    """The module's name in the network."""
    type: str
    """The module's class."""
    output_shape: list[int]
    kernel_shape: list[int] | None
    """(out, in, height, width) of a convolution, None for other layers."""
    parameters: int
    """Parameters of its own, without those of layers inside it."""
