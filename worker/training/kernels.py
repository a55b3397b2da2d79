"""History of the first layer's kernels: of as many epochs as their budget holds."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.networks.kernel_budget import EXACT_BYTES, capacity

LARGEST_HALF = 65504.0


class KernelHistory:
    """Kernels by epoch, thinned evenly once there are more of them than models.networks.kernel_budget allows.

    Kept are the epochs 1, 1 + stride, 1 + 2 * stride, ..., the best one and the last one; the stride doubles whenever
    that becomes too many. What is kept is a function of the epochs and of nothing else, so that a resumed run keeps the
    same. Where there is room for two epochs only, they are the first and the last: the best one's are in its weights.
    """

    def __init__(self) -> None:
        self.kernels: dict[int, Tensor] = {}
        self.stride = 1
        self.best = 0
        """The best epoch so far."""

    def add(self, epoch: int, weight: Tensor, *, is_best: bool) -> None:
        """Keep an epoch's kernels, and drop those of others when the budget is exceeded."""
        if is_best:
            self.best = epoch
        room = capacity(weight.numel() * 4)
        self.kernels[epoch] = _kept(weight)
        self._thin(epoch)
        while len(self.kernels) > room and self.stride < epoch:
            self.stride *= 2
            self._thin(epoch)
        if len(self.kernels) > room:
            self.kernels.pop(self.best, None)

    def _thin(self, last: int) -> None:
        self.kernels = {
            epoch: kernels
            for epoch, kernels in self.kernels.items()
            if (epoch - 1) % self.stride == 0 or epoch in (self.best, last)
        }

    def by_epoch(self) -> dict[int, NDArray[np.floating[Any]]]:
        """The kernels (out, in, h, w) of the epochs that are kept, in order."""
        return {epoch: kernels.numpy() for epoch, kernels in self.kernels.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The content of the file: `kernels` (epochs kept, out, in, h, w), and `epochs`, their numbers."""
        return {
            "kernels": torch.stack(list(self.kernels.values())),
            "epochs": torch.tensor(list(self.kernels), dtype=torch.int64),
        }

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"kernels": self.kernels, "stride": self.stride, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.kernels, self.stride, self.best = dict(state["kernels"]), state["stride"], state["best"]


def _kept(weight: Tensor) -> Tensor:
    weight = weight.detach().float().cpu()
    if weight.numel() * 4 > EXACT_BYTES:
        weight = weight.clamp(-LARGEST_HALF, LARGEST_HALF).half()
    return weight.clone(memory_format=torch.contiguous_format)
