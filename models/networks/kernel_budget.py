"""What is kept of a network's first convolution while it trains, and what that takes."""

KERNELS_BYTES = 32 * 2**20
"""Of all epochs' kernels that a run keeps: in memory, in its file of kernels, in each checkpoint."""
EXACT_BYTES = 2**20
"""An epoch's kernels larger than this are for pictures: they are kept as 16-bit floats."""
FEWEST_KEPT = 2
"""The first and the last epoch's, however large they are."""


def kept_bytes(exact_bytes: int) -> int:
    """What one epoch's kernels of so many bytes take where they are kept."""
    return exact_bytes // 2 if exact_bytes > EXACT_BYTES else exact_bytes


def capacity(exact_bytes: int) -> int:
    """Of how many epochs kernels of so many bytes are kept."""
    return max(FEWEST_KEPT, KERNELS_BYTES // max(1, kept_bytes(exact_bytes)))


def history_bytes(exact_bytes: int, epochs: int) -> int:
    """What the kernels of a run of so many epochs take in the end."""
    return min(epochs, capacity(exact_bytes)) * kept_bytes(exact_bytes)
