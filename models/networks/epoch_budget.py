"""Decides which epochs' weights are kept for timelines, as 16-bit floats, within a budget of disk space."""

from functools import lru_cache

EPOCHS_BYTES = 32 * 2**20
"""The most bytes of a run's kept epochs, without the best and the last weights."""
MOST_KEPT = 64
FEWEST_KEPT = 4
"""If fewer epochs than this fit, none are kept; the best and the last weights exist in any case."""


def epoch_bytes(weight_bytes: int) -> int:
    """Bytes of one kept epoch of a network with `weight_bytes` of 32-bit weights."""
    return weight_bytes // 2 + 4096


def capacity(weight_bytes: int) -> int:
    """The number of epochs that are kept of weights of this size; 0 for none."""
    fit = min(MOST_KEPT, EPOCHS_BYTES // epoch_bytes(weight_bytes))
    return fit if fit >= FEWEST_KEPT else 0


def epochs_bytes(weight_bytes: int, epochs: int) -> int:
    """Bytes of all kept epochs at the end of a run."""
    return min(epochs, capacity(weight_bytes)) * epoch_bytes(weight_bytes)


@lru_cache(maxsize=8)
def kept_epochs(last: int, room: int) -> tuple[int, ...]:
    """The epochs that are kept after epoch `last`, rising: the first, the last, and those between, thinner with age.

    A pure function, so that a resumed run keeps the same epochs as an uninterrupted one. Whenever there is one too
    many, the epoch is dropped whose neighbours are closest together relative to its age: gaps grow with age.
    """
    kept: list[int] = []
    for epoch in range(1, last + 1):
        kept.append(epoch)
        if len(kept) > room:
            between = range(1, len(kept) - 1)
            del kept[min(between, key=lambda place: (kept[place + 1] - kept[place - 1]) / (epoch - kept[place] + 1))]
    return tuple(kept)
