"""An exponential moving average of the weights, evaluated and saved in their place when the spec has it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The moving average of a network's weights and floating-point buffers.

    After t steps the decay is min(decay, (1 + t) / (10 + t)): faster early on, or it would average the start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.source = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
        self.average = [tensor.clone() for tensor in self.source]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after a step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.average, self.source, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averaged weights into the network within this block, and restore its own after it."""
        own = [tensor.clone() for tensor in self.source]
        self._write(self.average)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.source, values)

    def state_dict(self) -> dict[str, object]:
        """The average and how often it was updated."""
        return {"num_updates": self.num_updates, "average": self.average}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue from a saved state."""
        self.num_updates = int(state["num_updates"])  # type: ignore[call-overload]
        with torch.no_grad():
            torch._foreach_copy_(self.average, list(state["average"]))  # type: ignore[call-overload]
