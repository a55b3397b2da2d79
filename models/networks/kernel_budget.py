"""Decides of how many epochs the first convolution's kernels are kept, within a budget of disk space."""

KERNELS_BYTES = 32 * 2**20
"""The most bytes of kernels that a run keeps: in memory, in its file of kernels, in each checkpoint."""
EXACT_BYTES = 2**20
"""Kernels of an epoch larger than this are kept as 16-bit floats, which is enough for pictures."""
FEWEST_KEPT = 2
"""The least number of epochs, however large the kernels: the first and the last."""


def kept_bytes(exact_bytes: int) -> int:
    """Bytes that one epoch's kernels take when kept, from their bytes as 32-bit floats."""
    return exact_bytes // 2 if exact_bytes > EXACT_BYTES else exact_bytes


def capacity(exact_bytes: int) -> int:
    """The number of epochs that are kept of kernels of this many bytes."""
    return max(FEWEST_KEPT, KERNELS_BYTES // max(1, kept_bytes(exact_bytes)))


def history_bytes(exact_bytes: int, epochs: int) -> int:
    """Bytes of all kept kernels at the end of a run of this many epochs."""
    return min(epochs, capacity(exact_bytes)) * kept_bytes(exact_bytes)
