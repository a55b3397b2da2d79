"""Softmax in 64 bits: logits that a network computes, as probabilities."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_sum_exp(logits: NDArray[np.floating]) -> Floats:
    """log(sum(exp(logits))) of each row of (N, K), without overflow."""
    values = np.asarray(logits, np.float64)
    highest: Floats = values.max(axis=1)
    total: Floats = highest + np.log(np.exp(values - highest[:, None]).sum(axis=1))
    return total


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> Floats:
    """Probabilities (N, K) of logits (N, K), which are divided by the temperature first."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers: Floats = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
