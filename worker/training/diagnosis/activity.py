"""Measures how often each channel of a layer is active: how often its output is positive before a ReLU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

RECTIFIERS = (nn.ReLU, nn.ReLU6)
"""Activations that are exactly zero where a channel is not active."""
BEFORE_RECTIFIERS = (nn.BatchNorm2d, nn.Dropout2d, nn.Dropout, nn.Identity, nn.MaxPool2d)
"""Layers that may stand between a layer with weights and its activation."""


@dataclass(frozen=True)
class Activity:
    """For each output channel: the fraction of positions at which it fires, over all images and the maximum of any."""

    fires: NDArray[np.float64]
    fires_at_most: NDArray[np.float64]


def watch_activity(network: nn.Module, images: Tensor) -> dict[str, Activity]:
    """Run images through in evaluation mode and measure every convolution and linear layer that a ReLU module follows.

    Layers followed by anything else (GELU, SiLU, a sum) are left out: their channels are never exactly silent.
    The network's mode is restored.
    """
    with modes_kept(network), watching(network) as activity:
        network.eval()
        network(images)
    return activity


@contextmanager
def watching(network: nn.Module) -> Iterator[dict[str, Activity]]:
    """Within this block forward passes are measured, without gradients: the dictionary is filled by each pass."""
    watcher = _Watcher(network)
    try:
        with torch.no_grad():  # not inference mode, which would not count changes in place
            yield watcher.activity
    finally:
        watcher.remove()


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Restore every module's mode after this block."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Watcher:
    """Matches a layer's output with the ReLU that reads it: the same memory, unchanged in between."""

    def __init__(self, network: nn.Module) -> None:
        self.activity: dict[str, Activity] = {}
        self._pending: dict[int, tuple[str, Tensor, int, Tensor]] = {}
        self._handles: list[RemovableHandle] = []
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                self._handles.append(module.register_forward_hook(partial(self._after_layer, name)))
            elif isinstance(module, RECTIFIERS):
                self._handles.append(module.register_forward_hook(self._after_cut))
            elif isinstance(module, BEFORE_RECTIFIERS):
                self._handles.append(module.register_forward_hook(self._after_pass))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._pending.clear()

    def _after_layer(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._expect(name, output, output)

    def _after_pass(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name, fired = self._came_from(inputs[0], module)
        if name is not None:
            self._expect(name, output, fired if isinstance(module, nn.MaxPool2d) else output)

    def _after_cut(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        name, fired = self._came_from(inputs[0], module)
        if name is None or fired.ndim not in (2, 4):  # of anything else the second dimension may not be channels
            return
        positive = (fired > 0).reshape(*fired.shape[:2], -1).double().mean(dim=2)
        fires, most = positive.mean(dim=0), positive.amax(dim=0)
        self.activity[name] = Activity(fires.cpu().numpy(), most.cpu().numpy())

    def _expect(self, name: str, output: Tensor, fired: Tensor) -> None:
        # The tensor is kept so that its memory is not given to another. What fires is counted before a pooling.
        self._pending[output.data_ptr()] = (name, output, output._version, fired)

    def _came_from(self, taken: Tensor, module: nn.Module) -> tuple[str | None, Tensor]:
        """The layer whose output this is; None if something was added to it in place, as a shortcut is."""
        name, _, version, fired = self._pending.pop(taken.data_ptr(), (None, None, 0, taken))
        own = 1 if getattr(module, "inplace", False) else 0
        return (name if taken._version == version + own else None), fired
