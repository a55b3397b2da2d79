"""Shortens the rows of a study so that all of them fit into a time budget.

Every row keeps the same part of its work (times its `share`), so that rows stay comparable: fewer epochs and fewer
images. A row's cost is estimated from dry runs at first, then from the rows that have ended.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, TypeVar

from models.spec.changes import with_changes
from models.spec.experiment import ExperimentSpec
from models.text import duration, plural

EPOCHS_POWER = 0.5
"""A row that keeps a part s of its work keeps about s to this power of its epochs, and the rest of s in its images."""
FEWEST_IMAGES = 1000
FEWEST_VALIDATION = 2000
"""The fewest validation images: with fewer a difference of two points is noise, and validation is cheap anyway."""
MARGIN = 0.97
"""The part of the budget that is planned; the rest is a reserve for estimation errors and the report."""
AT_FIRST = 0.9
"""The part that the first plan takes: if runs take longer than their dry runs let expect, the rows to come need not be
shorter than those before. What is left over is spent on more seeds."""
SMALLEST = 1e-9
"""A scale at which every row is as short as it can be."""
ALIKE = 1.5
"""Rows of which one keeps more than so many times the other's part of its work are not judged by their scores."""
NEAR = 0.08
"""A plan that exceeds the time by up to this part is kept, since equally shortened rows can be compared."""
SPARE = 0.1
"""If at least this part of the budget is left, it is spent on more seeds."""

Row = TypeVar("Row")


class BudgetPlan(TypedDict):
    """How a study's rows are shortened to fit its budget, as it is stored."""

    scale: float
    """The part of every row's work that is kept, from 0 to 1."""
    val_limit: int
    """Validation images of every row."""
    budget_seconds: float
    most: NotRequired[float]
    """The scale of the first plan, which later ones do not exceed."""


@dataclass(frozen=True)
class Work:
    """The work of one full run of a row, and its cost on this machine."""

    key: str
    epochs: int
    train_images: int
    val_images: int
    test_images: int
    """0 where the test split is not measured."""
    train_seconds: float
    """Of one training image, one way through."""
    val_seconds: float
    """Of one image that is only measured."""
    start_seconds: float
    """From the queue to the first step, and from the last step to the end."""
    share: float = 1.0
    min_epochs: int = 1
    """Epochs that are kept at least, as long as FEWEST_IMAGES are left."""
    runs: int = 1
    """Runs of this row that have not begun."""


@dataclass(frozen=True)
class Length:
    """The length of a run: epochs, images to train on, images to validate on."""

    epochs: int
    train_images: int
    val_images: int


def full_length(work: Work) -> Length:
    """The row as it is written."""
    return Length(work.epochs, work.train_images, work.val_images)


def val_limit_at(scale: float, val_images: int) -> int:
    """How many images rows are validated on at a scale: the same ones for all of them, so that they can be paired."""
    part = float(min(1.0, scale) ** (1 - EPOCHS_POWER))
    return min(val_images, max(FEWEST_VALIDATION, round(val_images * part / 100) * 100))


def shortened(work: Work, scale: float, val_limit: int | None = None) -> Length:
    """The length of a row at a scale, 1 for all of its work. At least one epoch of FEWEST_IMAGES.

    `val_limit` is that of rows that have been planned before; without one it follows from the scale.
    """
    part = min(1.0, scale * work.share)
    val = min(work.val_images, val_limit or val_limit_at(scale, work.val_images))
    if part >= 1:
        return Length(work.epochs, work.train_images, val)
    kept = part**EPOCHS_POWER
    kept = max(kept, min(1.0, work.min_epochs / work.epochs, part * work.train_images / FEWEST_IMAGES))
    epochs = min(work.epochs, max(1, round(work.epochs * kept)))
    wanted = work.epochs * work.train_images * part / epochs
    train = min(work.train_images, max(FEWEST_IMAGES, round(wanted / 100) * 100))
    return Length(epochs, train, val)


def seconds_of(work: Work, length: Length) -> float:
    """Seconds of one run of a row at a length: its epochs, and the outputs that are measured when it has ended."""
    an_epoch = length.train_images * work.train_seconds + length.val_images * work.val_seconds
    end = (length.val_images + work.test_images) * work.val_seconds
    return work.start_seconds + length.epochs * an_epoch + end


def total_seconds(works: Sequence[Work], scale: float, parallel: int = 1, val_limit: int | None = None) -> float:
    """Seconds that all runs which have not begun take, on this many workers."""
    each = [seconds_of(work, shortened(work, scale, val_limit)) for work in works for _ in range(work.runs)]
    return max(sum(each) / max(parallel, 1), max(each, default=0.0))


def fit(works: Sequence[Work], seconds: float, *, parallel: int = 1, val_limit: int | None = None) -> float:
    """The largest scale at which all runs fit; 1 if all of them fit in full. 0 if not even the shortest do."""
    least = min((1 / work.share for work in works), default=1.0) * SMALLEST
    most = max((1 / work.share for work in works), default=1.0)
    if total_seconds(works, least, parallel, val_limit) > seconds:
        return 0.0
    if total_seconds(works, most, parallel, val_limit) <= seconds:
        return most
    low, high = least, most
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if total_seconds(works, middle, parallel, val_limit) <= seconds else (low, middle)
    return low


def first_fit(works: Sequence[Work], budget: float, spent: float = 0.0, *, parallel: int = 1) -> float:
    """The scale of a first plan, with a reserve where the budget allows for one; 0 if no rows are short enough."""
    return fit(works, AT_FIRST * budget - spent, parallel=parallel) or fit(
        works, MARGIN * budget - spent, parallel=parallel
    )


def refit(
    works: Sequence[Work],
    seconds: float,
    scale: float,
    most: float,
    *,
    parallel: int = 1,
    val_limit: int | None = None,
) -> float:
    """The scale of the rows that are left: the one so far, unless it ends well after the time that is left.

    Rows that are shortened alike can be compared, so it grows, up to `most`, only where it was that much too small:
    after a time in which the machine was slow. Time that is left over is spent on more seeds.
    """
    expected = total_seconds(works, scale, parallel, val_limit)
    fitting = min(most, fit(works, seconds, parallel=parallel, val_limit=val_limit)) or SMALLEST
    if scale > 0 and expected <= (1 + NEAR) * max(seconds, 1.0) and fitting < ALIKE * scale:
        return scale
    return max(fitting, scale) if fitting >= ALIKE * scale else min(fitting, scale)


def by_urgency(lasting: Sequence[tuple[Row, float]], seconds: float) -> list[Row]:
    """The order in which rows begin, from pairs of a row and its seconds: as they are written.

    One that takes more than half of the time that is left goes first: begun late it would end late.
    """
    urgent = [(row, each) for row, each in lasting if each > seconds / 2]
    urgent.sort(key=lambda pair: -pair[1])
    return [row for row, _ in urgent] + [row for row, each in lasting if each <= seconds / 2]


def is_much_shorter(length: Length, full: Length) -> bool:
    """Whether less than half of a row's work is left."""
    return 2 * length.epochs * length.train_images < full.epochs * full.train_images


def shorten(
    spec: ExperimentSpec, length: Length, full: Length, when_shortened: Mapping[str, Any] | None = None
) -> ExperimentSpec:
    """The spec at a length. What counts in epochs is stretched with them, so that a schedule keeps its shape.

    `when_shortened` are fields that change too where less than half of the work is left.
    """
    if length == full:
        return spec
    changes: dict[str, Any] = dict(when_shortened or {}) if is_much_shorter(length, full) else {}
    if length.train_images < full.train_images:
        changes["dataset.train_limit"] = length.train_images
    if length.val_images < full.val_images:
        changes["dataset.val_limit"] = length.val_images
    if length.epochs < spec.epochs:
        changes |= {"epochs": length.epochs, **_schedule(spec, length.epochs / spec.epochs)}
    return with_changes(spec, changes)


def _schedule(spec: ExperimentSpec, part: float) -> dict[str, Any]:
    fields = spec.lr_scheduler.for_part(part)
    changes: dict[str, Any] = {f"lr_scheduler.{field}": value for field, value in fields.items()}
    if spec.progressive_resizing:
        first = {phase.input_size: max(1, round(phase.from_epoch * part)) for phase in spec.progressive_resizing}
        phases = {epoch: size for size, epoch in first.items()}
        changes["progressive_resizing"] = [
            {"from_epoch": epoch, "input_size": size} for epoch, size in sorted(phases.items())
        ]
    return changes


def describe_shortening(
    spec: ExperimentSpec,
    length: Length,
    full: Length,
    full_seconds: float,
    when_shortened: Mapping[str, Any] | None = None,
) -> str:
    """A sentence on what was left out of a row; empty if nothing was."""
    parts = []
    if length.epochs < full.epochs:
        parts.append(f"{length.epochs} of {plural(full.epochs, 'epoch')}")
    if length.train_images < full.train_images:
        parts.append(f"{length.train_images:,} of {full.train_images:,} training images")
    if length.val_images < full.val_images:
        parts.append(f"{length.val_images:,} of {full.val_images:,} validation images")
    if not parts:
        return ""
    schedule = ""
    if length.epochs < full.epochs and _schedule(spec, length.epochs / full.epochs):
        schedule = "; the schedule runs its whole course in them"
    if when_shortened and is_much_shorter(length, full):
        parts += [f"{field.replace('_', ' ')} {value}" for field, value in when_shortened.items()]
    return f"{', '.join(parts)}{schedule}. In full it takes about {duration(full_seconds)} here."
