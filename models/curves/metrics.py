"""The metrics of an epoch, their best and last values, and thinning of long histories. Free of torch and SQLAlchemy."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TypedDict


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

    def as_json(self) -> dict[str, float | None]:
        """The epoch as plain JSON data, with null for what is not finite."""
        return {
            name: value if value is None or math.isfinite(value) else None
            for name, value in zip(NAMES, values_of(self), strict=True)
        }


NAMES: tuple[str, ...] = tuple(field.name for field in fields(EpochMetrics))
values_of = attrgetter(*NAMES)
"""An epoch's figures in the order of NAMES."""
SERIES: tuple[str, ...] = NAMES[1:]
MAXIMISED = frozenset({"train_accuracy", "val_accuracy", "images_per_second"})
"""Series of which the largest value is the best; of the others it is the smallest."""


def is_better(series: str, value: float | None, best: float | None) -> bool:
    """Whether a value of a series becomes the best. Of equal ones the first stays it; what is not finite never is.

    The one meaning of "best": of the summaries, of the weights that are kept, and so of what the test split measures.
    """
    if value is None or not math.isfinite(value):
        return False
    return best is None or (value > best if series in MAXIMISED else value < best)


class BestValue(TypedDict):
    """The best value of a series and the first epoch that had it."""

    value: float
    epoch: int


class Summaries(TypedDict):
    """Best and last values by series, as they are sent; the last is None where it was not finite."""

    best: dict[str, BestValue]
    last: dict[str, float | None]


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
        if is_better(series, last, self.best):
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
    of each series (so the best of each), the first and last non-finite epoch of each, and the epochs numbered in
    `keep`; where there is room, where each stretch of non-finite ones begins and ends. Of the rest, half are chosen by
    largest-triangle-three-buckets (Steinarsson 2013) on the validation accuracy and half on the validation loss, so
    that dips and spikes of either stay.
    """
    if len(history) <= max(points, 2):
        return list(history)
    chosen = _landmarks(history) | {index for index, metrics in enumerate(history) if metrics.epoch in keep}
    edges = _edges_of_gaps(history) - chosen
    if len(edges) <= (points - len(chosen)) // 2:
        chosen |= edges
    if points > len(chosen):
        chosen |= _largest_triangles([metrics.val_accuracy for metrics in history], (points - len(chosen) + 1) // 2)
    if points > len(chosen):
        chosen |= _largest_triangles([metrics.val_loss for metrics in history], points - len(chosen))
    if (missing := points - len(chosen)) > 0:  # both chose the same
        others = [index for index in range(len(history)) if index not in chosen]
        chosen |= {others[place * len(others) // missing] for place in range(missing)}
    return [history[index] for index in sorted(chosen)]


def _landmarks(history: Sequence[EpochMetrics]) -> set[int]:
    found = {0, len(history) - 1}
    for series in SERIES:
        values = [getattr(metrics, series) for metrics in history]
        usable = [index for index, value in enumerate(values) if value is not None and math.isfinite(value)]
        if usable:
            found |= {min(usable, key=values.__getitem__), max(usable, key=values.__getitem__)}
        broken = [index for index, value in enumerate(values) if value is not None and not math.isfinite(value)]
        found |= {*broken[:1], *broken[-1:]}
    return found


def _edges_of_gaps(history: Sequence[EpochMetrics]) -> set[int]:
    """The first and the last epoch of every stretch in which a series is not finite."""
    found: set[int] = set()
    for series in SERIES:
        values = [getattr(metrics, series) for metrics in history]
        broken = [value is not None and not math.isfinite(value) for value in values]
        ends = zip(broken, [False, *broken[:-1]], [*broken[1:], False], strict=True)
        found |= {index for index, (here, before, after) in enumerate(ends) if here and not (before and after)}
    return found


def _largest_triangles(series: Sequence[float], count: int) -> set[int]:
    """One index a bucket: the one that makes the largest triangle with the last choice and the next bucket's mean."""
    values = [value if math.isfinite(value) else 0.0 for value in series]
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
