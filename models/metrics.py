"""What is measured in an epoch, and how a long history is thinned for drawing. Free of torch and SQLAlchemy."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One epoch. Losses are means per image, accuracies fractions; any of them may be non-finite when training fails.

    Non-finite values live in memory only: they are stored as NULL, sent as null, and read back as NaN.
    """

    epoch: int
    """Counted from 1."""
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    """Learning rate at the end of the epoch."""
    grad_norm: float | None
    """Mean over the epoch's steps; None where it was not measured."""
    seconds: float
    """The whole epoch, validation included."""
    images_per_second: float
    """Of the training part."""
    peak_memory_mb: float

    def as_json(self) -> dict[str, Any]:
        """The epoch as plain JSON data, with null for what is not finite."""
        return {
            name: value if value is None or math.isfinite(value) else None
            for name, value in zip(NAMES, _values(self), strict=True)
        }


NAMES: tuple[str, ...] = tuple(field.name for field in fields(EpochMetrics))
_values = attrgetter(*NAMES)
SERIES: tuple[str, ...] = NAMES[1:]
MAXIMISED = frozenset({"train_accuracy", "val_accuracy", "images_per_second"})
"""Series of which the largest value is the best; of the others it is the smallest."""


def finite(value: Any) -> Any:
    """JSON data with every non-finite float in it replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Summary:
    """The best and last value of one series; None where no epoch, or not the last one, was finite."""

    best: float | None
    best_epoch: int | None
    last: float | None

    def extended(self, series: str, epoch: int, value: float | None) -> "Summary":
        """This summary after one more epoch. Of equal values the first stays the best."""
        last = None if value is None or not math.isfinite(value) else value
        if last is None:
            return Summary(self.best, self.best_epoch, None)
        if self.best is None or (last > self.best if series in MAXIMISED else last < self.best):
            return Summary(last, epoch, last)
        return Summary(self.best, self.best_epoch, last)


EMPTY = Summary(None, None, None)


def summarise(history: Iterable[EpochMetrics]) -> dict[str, Summary]:
    """Best and last of every series over a whole history; empty for an empty one."""
    summaries: dict[str, Summary] = {}
    for metrics in history:
        for series in SERIES:
            before = summaries.get(series, EMPTY)
            summaries[series] = before.extended(series, metrics.epoch, getattr(metrics, series))
    return summaries


def thin(history: Sequence[EpochMetrics], points: int, keep: Collection[int] = ()) -> list[EpochMetrics]:
    """At most `points` epochs that draw the same curves, in order.

    Always kept, even when they alone are more than `points`: the first and last epoch, the smallest and largest value
    of each series (so the best of each), the first non-finite epoch, and the epochs numbered in `keep`. The rest are
    chosen by largest-triangle-three-buckets (Steinarsson 2013) on the validation loss.
    """
    if len(history) <= max(points, 2):
        return list(history)
    chosen = _landmarks(history) | {index for index, metrics in enumerate(history) if metrics.epoch in keep}
    if points > len(chosen):
        chosen |= _largest_triangles(history, points - len(chosen))
    return [history[index] for index in sorted(chosen)]


def _landmarks(history: Sequence[EpochMetrics]) -> set[int]:
    found = {0, len(history) - 1}
    for series in SERIES:
        values = [getattr(metrics, series) for metrics in history]
        usable = [index for index, value in enumerate(values) if value is not None and math.isfinite(value)]
        if usable:
            found |= {min(usable, key=values.__getitem__), max(usable, key=values.__getitem__)}
        broken = (index for index, value in enumerate(values) if value is not None and not math.isfinite(value))
        found |= set(list(broken)[:1])
    return found


def _largest_triangles(history: Sequence[EpochMetrics], count: int) -> set[int]:
    """One index a bucket: the one that makes the largest triangle with the last choice and the next bucket's mean."""
    values = [metrics.val_loss if math.isfinite(metrics.val_loss) else 0.0 for metrics in history]
    edges = [1 + (len(values) - 2) * bucket // count for bucket in range(count + 1)]
    chosen, before = set(), 0
    for bucket in range(count):
        start, end = edges[bucket], edges[bucket + 1]
        following = range(end, edges[bucket + 2]) if bucket + 2 <= count else [len(values) - 1]
        ahead = following or [len(values) - 1]
        ahead_x, ahead_y = sum(ahead) / len(ahead), sum(values[index] for index in ahead) / len(ahead)
        if start == end:
            continue
        base, height = before - ahead_x, ahead_y - values[before]
        areas = [abs(base * (values[i] - values[before]) - (before - i) * height) for i in range(start, end)]
        before = start + areas.index(max(areas))
        chosen.add(before)
    return chosen
