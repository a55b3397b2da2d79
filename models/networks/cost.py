"""The cost of a network: its parameters, and the bytes that training keeps."""

from dataclasses import dataclass

FLOAT_BYTES = 4
INDEX_BYTES = 8  # max pooling remembers where its maxima stood as 64-bit integers


@dataclass(frozen=True)
class Cost:
    """The cost of a network: its parameters, and the bytes that training keeps of one image for the backward pass."""

    num_parameters: int
    activation_bytes: int
    largest_activation_bytes: int
    first_kernels_bytes: int = 0
    """The weight of the first convolution, which is kept of many epochs."""
