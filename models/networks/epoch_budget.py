"""Which epochs' weights are kept for timelines, in 16 bits, and what that takes."""

from functools import lru_cache

EPOCHS_BYTES = 32 * 2**20
"""Of all epochs' weights that a run keeps beside the best and the last."""
MOST_KEPT = 64
FEWEST_KEPT = 4
"""Of a network so large that fewer would fit, none are kept: the best and the last epoch's are there in any case."""


def epoch_bytes(weight_bytes: int) -> int:
    """What one epoch's weights take, that are `weight_bytes` in 32 bits."""
    return weight_bytes // 2 + 4096


def capacity(weight_bytes: int) -> int:
    """Of how many epochs weights of this size are kept; 0 for none."""
    fit = min(MOST_KEPT, EPOCHS_BYTES // epoch_bytes(weight_bytes))
    return fit if fit >= FEWEST_KEPT else 0


def epochs_bytes(weight_bytes: int, epochs: int) -> int:
    """What the kept epochs of a run take in the end."""
    return min(epochs, capacity(weight_bytes)) * epoch_bytes(weight_bytes)


@lru_cache(maxsize=8)
def kept_epochs(last: int, room: int) -> tuple[int, ...]:
    """The epochs that are kept after epoch `last`, rising: the first, the last, and those between, thinner with age.

    A function of its arguments alone, so that a resumed run keeps what an uninterrupted one would. Whenever there is
    one too many, the one goes whose neighbours are closest together for its age: gaps grow in proportion to age.
    """
    kept: list[int] = []
    for epoch in range(1, last + 1):
        kept.append(epoch)
        if len(kept) > room:
            between = range(1, len(kept) - 1)
            del kept[min(between, key=lambda place: (kept[place + 1] - kept[place - 1]) / (epoch - kept[place] + 1))]
    return tuple(kept)
