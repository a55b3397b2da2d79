"""Checks whether a valid spec can be trained: SpecError with the field and the nearest value that would do."""

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from models.data.info import DatasetInfo
from models.errors import SpecError
from models.networks.cost import FLOAT_BYTES, Cost
from models.networks.family import family_of
from models.networks.memory import training_bytes, usable_bytes
from models.spec.experiment import ExperimentSpec
from models.spec.model import NetworkSpec
from models.text import plural

Fits = Callable[[ExperimentSpec], bool]

MAX_SIZE = 512  # of model.input_size; stands in for a null, which means the dataset's own


def check_fields(spec: ExperimentSpec, info: DatasetInfo) -> None:
    """Refuse settings that do not fit the dataset."""
    weights = spec.class_weights
    if isinstance(weights, tuple) and len(weights) != info.num_classes:
        _refuse(
            "class_weights",
            f"has {plural(len(weights), 'entry', 'entries')} for the "
            f"{plural(info.num_classes, 'class', 'classes')} of {info.name}",
            value=list(weights)[:20],
            nearest=[*weights, *[1.0] * info.num_classes][: info.num_classes] if any(weights) else "balanced",
            fix="give one weight a class, or 'balanced'",
        )
    if isinstance(weights, tuple) and not any(weights):
        _refuse(
            "class_weights", "are all 0, so no image would be trained on", value=list(weights)[:20], nearest="balanced"
        )
    if spec.dataset.evaluate_test and not info.num_test:
        _refuse(
            "dataset.evaluate_test",
            f"is true, and {info.title} has no test images",
            value=True,
            nearest=False,
            fix="leave it out, or import the images again with a test_fraction",
        )


def check_split(spec: ExperimentSpec, info: DatasetInfo) -> None:
    """Refuse a kind of split that the dataset has no information for."""
    split = spec.dataset.split
    if split == "given" and info.num_validation is None:
        _refuse(
            "dataset.split",
            f"is 'given', and {info.title} names no validation images",
            value=split,
            nearest="grouped" if info.num_groups is not None else "stratified",
        )
    if split == "grouped" and info.num_groups is None:
        _refuse(
            "dataset.split",
            f"is 'grouped', and {info.title} has no groups",
            value=split,
            nearest="given" if info.num_validation is not None else "stratified",
        )
    if split == "grouped" and info.num_groups == 1:
        _refuse(
            "dataset.split",
            f"is 'grouped', and all training images of {info.title} belong to one group",
            value=split,
            nearest="stratified",
        )


def check_sizes(spec: ExperimentSpec, info: DatasetInfo, *, channels: int, size: int) -> None:
    """Refuse an input that is too small for a layer, at the final size or in a phase of progressive resizing."""
    model, family = spec.model, family_of(spec.model)
    family.check_size(model, num_classes=info.num_classes, in_channels=channels, size=size)
    for place, phase in enumerate(spec.progressive_resizing):
        field = f"progressive_resizing.{place}.input_size"
        if family.fits_one_size(model) and phase.input_size != size:
            _refuse(
                field,
                f"a {model.name} fits one size of input, {size}, and no other",
                value=phase.input_size,
                nearest=size,
                fix="leave progressive_resizing out, or take a network that ends in global pooling",
            )
        if not family.fits_one_size(model) and phase.input_size < (least := family.minimum_size(model)):
            _refuse(field, f"{model.name} needs {least} pixels", value=phase.input_size, nearest=least)


def check_norms(spec: ExperimentSpec, smallest_norm_values: int | None) -> None:
    """Refuse batches of one image where batch normalisation would see a single value a channel."""
    if smallest_norm_values == 1 and spec.batch_size == 1:
        _refuse(
            "batch_size",
            "with one image a batch, batch normalisation of a feature map of one pixel has a single value a channel",
            value=spec.batch_size,
            nearest=2,
        )


def check_estimated_memory(spec: ExperimentSpec, info: DatasetInfo, *, channels: int, size: int) -> None:
    """Refuse a network that is too large by its estimated cost, before it is built on the meta device."""
    family = family_of(spec.model)

    def cost(model: NetworkSpec) -> Cost | None:
        side = model.input_size or size
        return family.estimate_cost(model, num_classes=info.num_classes, in_channels=channels, size=side)

    own = cost(spec.model)
    if own is None:
        return

    def fits(changed: ExperimentSpec) -> bool:
        try:
            found = own if changed.model is spec.model else cost(changed.model)
        except SpecError:
            return False  # an image too small for a kernel
        return found is not None and training_bytes_of(changed, found) <= usable_bytes()

    if not fits(spec):
        sizes = family.adjustable_sizes(
            spec.model, num_classes=info.num_classes, in_channels=channels, size=size, batch_size=spec.batch_size
        )
        candidates = [("batch_size", 2 if family.is_normed(spec.model) else 1), *sizes]
        _refuse_memory(spec, training_bytes_of(spec, own), candidates, fits)


def check_memory(spec: ExperimentSpec, cost: Cost, smallest_norm_values: int | None) -> None:
    """Refuse what does not fit into this machine's memory. No batch size is advised that `check_norms` would refuse."""

    def fits(changed: ExperimentSpec) -> bool:
        return training_bytes_of(changed, cost) <= usable_bytes()

    if not fits(spec):
        _refuse_memory(
            spec, training_bytes_of(spec, cost), [("batch_size", 2 if smallest_norm_values == 1 else 1)], fits
        )


def training_bytes_of(spec: ExperimentSpec, cost: Cost) -> int:
    """Bytes that training a network of this cost, as this spec asks, holds at once."""
    weights = cost.num_parameters * FLOAT_BYTES
    return training_bytes(spec, weights, cost.activation_bytes, cost.largest_activation_bytes, cost.first_kernels_bytes)


def _refuse_memory(spec: ExperimentSpec, needed: int, candidates: list[tuple[str, int]], fits: Fits) -> NoReturn:
    """Raise SpecError for the first (field, least value) candidate that can be made small enough, else for `model`."""
    text = f"training would need {_gigabytes(needed)}, and this machine has {_gigabytes(usable_bytes())} to give"
    fix = "make the batch, the images or the largest layer smaller"
    for field, least in candidates:
        value = _get(spec, field)
        nearest = _largest_that_fits(least, (value or MAX_SIZE) - 1, partial(_fits_with, spec, field, fits))
        if nearest is not None:
            _refuse(field, text, value=value, nearest=nearest, fix=fix)
    _refuse("model", text, value=spec.model.name, nearest="three_blocks", fix=fix)


def _largest_that_fits(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """The largest integer from `low` to `high` that fits; above one that does not fit, none does.

    It is looked for from `high` down by halves: the very smallest may not fit either (an image too small for a kernel).
    """
    too_large = high + 1
    while low <= high and not fits(high):
        too_large = high
        high = low if low < high < 2 * low else high // 2
    if low > high:
        return None
    while too_large - high > 1:
        middle = (high + too_large) // 2
        high, too_large = (middle, too_large) if fits(middle) else (high, middle)
    return high


def _fits_with(spec: ExperimentSpec, field: str, fits: Fits, value: int) -> bool:
    return fits(_replace(spec, field, value))


def _get(spec: ExperimentSpec, field: str) -> Any:
    part: Any = spec
    for key in field.split("."):
        part = part[int(key)] if isinstance(part, tuple) else getattr(part, key)
    return part


def _replace(part: Any, field: str, value: int) -> Any:
    """A copy with one field changed. Not validated again: the value lies below one that was."""
    key, _, rest = field.partition(".")
    if isinstance(part, tuple):
        place = int(key)
        return (*part[:place], _replace(part[place], rest, value) if rest else value, *part[place + 1 :])
    return part.model_copy(update={key: _replace(getattr(part, key), rest, value) if rest else value})


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"


def _refuse(field: str, message: str, *, value: Any, nearest: Any, fix: str | None = None) -> NoReturn:
    raise SpecError([{"field": field, "message": message, "value": value, "nearest": nearest}], fix=fix)
