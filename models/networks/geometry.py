"""Computes the feature map sizes and the cost of a declarative CNN by arithmetic, without building it.

A spec can ask for a kernel larger than the remaining feature map, or for more memory than any machine has. Both are
found here, without torch, with the nearest value that would do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from models.errors import SpecError
from models.networks.cost import FLOAT_BYTES, INDEX_BYTES, Cost
from models.spec.model import CnnSpec
from models.text import plural


@dataclass(frozen=True)
class _Step:
    """One layer's share of the cost. `field` is where the spec says how large the layer is."""

    field: str
    num_parameters: int
    activation_bytes: int


def walk(model: CnnSpec, *, num_classes: int, in_channels: int, size: int) -> Iterator[_Step]:
    """Each layer in order. Raises SpecError at the first that its input is too small for."""
    channels = in_channels
    yield _Step("model.input_size", 0, channels * size * size * FLOAT_BYTES)
    for b, block in enumerate(model.blocks):
        for c, conv in enumerate(block.convs):
            field = f"model.blocks.{b}.convs.{c}"
            padded = size + 2 * conv.padding
            if conv.kernel_size > padded:
                _refuse_kernel(field, conv.kernel_size, conv.padding, size)
            size = (padded - conv.kernel_size) // conv.stride + 1
            norm = 2 * conv.channels if conv.batch_norm else 0
            weights = conv.channels * (channels * conv.kernel_size**2 + 1) + norm
            channels = conv.channels
            outputs = channels * size * size * FLOAT_BYTES
            yield _Step(f"{field}.channels", weights, outputs * 2 if conv.batch_norm else outputs)
        if block.pool is not None:
            if block.pool > size:
                _refuse_pool(f"model.blocks.{b}.pool", block.pool, size)
            size //= block.pool
            yield _Step(f"model.blocks.{b}.pool", 0, channels * size * size * (FLOAT_BYTES + INDEX_BYTES))
        if block.dropout:
            yield _Step(f"model.blocks.{b}.dropout", 0, channels * size * size * FLOAT_BYTES)
    features = channels * size * size
    for h, units in enumerate((*model.head.hidden, num_classes)):
        field = f"model.head.hidden.{h}" if h < len(model.head.hidden) else "model.head"
        # a dropout keeps its mask and its output
        dropped = 2 * features * FLOAT_BYTES if model.head.dropout and model.head.dropout[h] else 0
        yield _Step(field, (features + 1) * units, units * FLOAT_BYTES + dropped)
        features = units


def cost_of(model: CnnSpec, *, num_classes: int, in_channels: int, size: int) -> Cost:
    """The sum over the layers."""
    steps = list(walk(model, num_classes=num_classes, in_channels=in_channels, size=size))
    first = model.blocks[0].convs[0]
    return Cost(
        num_parameters=sum(step.num_parameters for step in steps),
        activation_bytes=sum(step.activation_bytes for step in steps),
        largest_activation_bytes=max(step.activation_bytes for step in steps),
        first_kernels_bytes=first.channels * in_channels * first.kernel_size**2 * FLOAT_BYTES,
    )


def heaviest_field(model: CnnSpec, *, num_classes: int, in_channels: int, size: int, batch_size: int) -> str:
    """The field that decides the layer with the largest share of the memory."""
    steps = list(walk(model, num_classes=num_classes, in_channels=in_channels, size=size))

    def share(place: int) -> int:
        # a layer is as heavy as its inputs and outputs make it: a convolution's weights count for it and what it feeds
        return steps[place].num_parameters * FLOAT_BYTES + steps[place].activation_bytes * batch_size

    # a pooling or dropout has no size of its own: what comes before it decides
    sized = [
        place
        for place, step in enumerate(steps)
        if step.field.endswith(("channels", "input_size")) or "hidden" in step.field
    ]
    return steps[max(sized, key=share)].field


def _refuse_kernel(field: str, kernel_size: int, padding: int, size: int) -> NoReturn:
    padded = size + 2 * padding
    text = (
        plural(size, "pixel")
        if padding == 0
        else f"{plural(size, 'pixel')} and {padding} of padding at each edge, {padded} in all"
    )
    _refuse(
        f"{field}.kernel_size", f"a kernel of {kernel_size} is larger than its input of {text}", kernel_size, padded
    )


def _refuse_pool(field: str, pool: int, size: int) -> NoReturn:
    text = f"a pooling window of {pool} is larger than its input of {plural(size, 'pixel')}"
    _refuse(field, text if size >= 2 else text + "; null leaves the pooling out", pool, size if size >= 2 else None)


def _refuse(field: str, message: str, value: Any, nearest: Any) -> NoReturn:
    raise SpecError(
        [{"field": field, "message": message, "value": value, "nearest": nearest}],
        fix="use fewer or smaller poolings and strides, more padding, or a larger model.input_size",
    )
