"""Layers, operations and memory of a network on the meta device, where tensors have shapes and no content.

`follow` goes through a plain sequence of layers one by one, by arithmetic. `run` is for any network: it is run once
while autograd reports every tensor that it keeps for the backward pass. That costs tenths of a second, and seconds the
first time, when torch loads what describes its operators' shapes.
"""

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.networks.cost import FLOAT_BYTES, INDEX_BYTES
from models.networks.layer import Layer

RUN_IMAGES = 2  # batch normalisation cannot be run on one value a channel


class Record:
    """The layers recorded so far, and the bytes of one image that training keeps."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.macs = 0
        self.smallest_norm_values: int | None = None
        self.kept: list[int] = []

    def note(self, name: str, module: nn.Module, output_shape: tuple[int, ...]) -> None:
        """A layer was used; `output_shape` leaves out the batch."""
        weight = getattr(module, "weight", None)
        is_convolution = isinstance(module, nn.Conv2d)
        if isinstance(weight, Tensor) and (is_convolution or isinstance(module, nn.Linear)):
            self.macs += (
                math.prod(output_shape) * weight[0].numel()
            )  # every value that comes out is a sum over one filter
        if isinstance(module, nn.BatchNorm2d):
            values = math.prod(output_shape[1:])
            self.smallest_norm_values = min(values, self.smallest_norm_values or values)
        if name not in self.layers:  # a layer that is used twice is listed once
            self.layers[name] = {
                "name": name,
                "type": type(module).__name__,
                "output_shape": list(output_shape),
                "kernel_shape": list(weight.shape) if is_convolution and isinstance(weight, Tensor) else None,
                "parameters": sum(parameter.numel() for parameter in module.parameters(recurse=False)),
            }


def follow(network: nn.Module, in_channels: int, size: int, record: Record) -> None:
    """Trace an image through a sequential network."""
    shape: tuple[int, ...] = (in_channels, size, size)
    record.kept.append(math.prod(shape) * FLOAT_BYTES)
    for name, module in _leaves(network):
        shape = _output_shape(module, shape)
        record.note(name, module, shape)
        record.kept.append(_kept_values(module, shape))


def _leaves(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in network.named_modules() if not next(module.children(), None)]


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    match module:
        case nn.Conv2d(padding="same"):
            return (module.out_channels, *shape[1:])
        case nn.Conv2d():
            size, kernel, stride = shape[1], module.kernel_size[0], module.stride[0]
            side = (size + 2 * int(module.padding[0]) - kernel) // stride + 1
            return (module.out_channels, side, side)
        case nn.MaxPool2d():
            side = shape[1] // int(module.kernel_size)  # type: ignore[arg-type]
            return (shape[0], side, side)
        case nn.Linear():
            return (module.out_features,)
        case nn.Dropout():
            return (math.prod(shape),)  # only the head has one: its input was flattened
        case _:
            return shape


def _kept_values(module: nn.Module, output_shape: tuple[int, ...]) -> int:
    """Bytes kept of one image because of a layer: its output, which the next layer needs, and what it needs itself."""
    values = math.prod(output_shape)
    match module:
        case nn.ReLU():
            return 0  # in place
        case nn.MaxPool2d():
            return values * (FLOAT_BYTES + INDEX_BYTES)
        case nn.Dropout():
            return values * 2 * FLOAT_BYTES
        case _:
            return values * FLOAT_BYTES


def run(network: nn.Module, in_channels: int, size: int, record: Record) -> None:
    """Run a network on images without content, recording what autograd keeps."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # an address is an identity only as long as its tensor lives

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes() // RUN_IMAGES
            alive.append(tensor)
        return tensor

    def noting(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            record.note(name, module, tuple(output.shape[1:]))

        return note

    hooks = [module.register_forward_hook(noting(name)) for name, module in _leaves(network)]
    # attention multiplies matrices in functions and not in layers of its own, so operations are counted one by one
    counter = FlopCounterMode(display=False) if _has_loose_weights(network) else None
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        counter or nullcontext(),
    ):
        network.train()(torch.empty(RUN_IMAGES, in_channels, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    record.kept += kept.values()
    if counter is not None:
        record.macs = counter.get_total_flops() // (2 * RUN_IMAGES)
        for name, module in network.named_modules():
            if name not in record.layers and _has_own_weights(module):
                record.note(name or "network", module, ())


def _has_own_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _has_loose_weights(network: nn.Module) -> bool:
    """Whether weights belong to modules that have layers inside them, as those of attention do."""
    return any(_has_own_weights(module) for module in network.modules() if next(module.children(), None) is not None)
