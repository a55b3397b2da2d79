"""The state of a network's filters, as worker.training measures it for the verdict.

A filter is one output channel of a convolution.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConvolutionHealth:
    """The filters of one convolution: how many there are, and the indices of those with something wrong."""

    num_filters: int
    fixed: bool = False
    """Whether its weights were not trained."""
    dead: Sequence[int] = ()
    """Filters whose weights are near zero beside their layer's, or that never responded to the images shown."""
    saturated: Sequence[int] | None = None
    """Filters that respond everywhere on every image, or have far larger weights than the others; None but for the
    first convolution."""
    duplicates: Sequence[tuple[int, int, float]] = ()
    """Pairs of filters that point in the same direction, and their cosine similarity: the first pairs only."""
    num_duplicates: int = 0
    """Filters in all such pairs."""
    noise_like: Sequence[int] | None = None
    """Filters without structure, as at random initialisation; None for kernels below 3x3."""


@dataclass(frozen=True)
class FilterHealth:
    """The filters of all convolutions, and how far layers moved."""

    convolutions: Mapping[str, ConvolutionHealth] = field(default_factory=dict)
    """By the layer's name, in the network's order."""
    movement: Mapping[str, float] | None = None
    """By the layer's name: the norm of its weights' change since the start, over their norm at the start."""
    num_images: int = 0
    """Images that were shown to find filters that never or always respond; 0 if weights alone were looked at."""
