"""Mixed precision: the number format of the forward and backward pass."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from models.errors import SpecError
from models.spec.experiment import Precision

DTYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def resolve_precision(asked: Precision, device: torch.device) -> Precision:
    """Resolve `auto` for this device. Raises SpecError for a format that the device does not compute in."""
    if asked == Precision.AUTO:
        if device.type != "cuda":
            return Precision.FP32
        return Precision.BF16 if torch.cuda.is_bf16_supported(including_emulation=False) else Precision.FP16
    if asked == Precision.FP16 and device.type != "cuda":
        message = "fp16 needs a CUDA device and this worker has none; use 'auto', 'fp32' or 'bf16'"
        raise SpecError([{"field": "precision", "message": message, "value": "fp16", "nearest": "bf16"}])
    return asked


class MixedPrecision:
    """Autocast, with loss scaling for fp16, whose smallest number of 6e-8 would turn many gradients into 0.

    Weights, optimizer and gradients of weights stay float32. bf16 has float32's range and needs no scaling.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.precision = precision
        self.device = device
        self.dtype = DTYPES.get(precision)
        self.scaler = torch.amp.GradScaler(device.type) if precision == Precision.FP16 else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute the forward pass within this block in the format.

        Without the cache of converted weights: each weight is used once a pass, so none would be taken from it.
        """
        return (
            nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype, cache_enabled=False)
        )

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient, times the loss scale if there is one, to that of each parameter."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the loss scale."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights; with loss scaling, a step whose gradient overflowed is left out and the scale halved."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The loss scale, if there is one."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved loss scale."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
