"""The finite guard: detects the first step whose loss or gradient is not finite, before it changes the weights."""

import math
from collections import deque
from typing import Literal, NoReturn

import torch
from torch import Tensor

REMEMBERED_NORMS = 64
READ_EVERY = 8
"""Steps between two reads of DeferredFiniteGuard, which checks a step at most twice as many steps later."""


class Diverged(Exception):
    """A loss, gradient or weight is not finite. `step` counts from 0; the weights are those of before it."""

    def __init__(self, epoch: int, step: int, what: Literal["loss", "gradient", "weight"]) -> None:
        super().__init__(f"the {what} stopped being finite at step {step + 1} of epoch {epoch}")
        self.epoch = epoch
        self.step = step
        self.what = what


class FiniteGuard:
    """Reads every step's loss and gradient norm. On a CPU they are computed already, so reading them costs nothing."""

    def __init__(self, *, watch_gradient: bool) -> None:
        self.watch_gradient = watch_gradient
        """False with loss scaling, which itself skips steps whose gradient overflows, and continues."""
        self.grad_norms: deque[Tensor] = deque(maxlen=REMEMBERED_NORMS)
        """Of the last steps, oldest first."""
        self.epoch = self.step = 0

    def begin(self, epoch: int, step: int) -> None:
        """Start checking an epoch at this step."""
        self.epoch, self.step = epoch, step

    def check(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Check a step whose weights are about to be updated. Raises Diverged."""
        finite_loss = math.isfinite(loss)
        if not finite_loss or (self.watch_gradient and not math.isfinite(grad_norm)):
            self.grad_norms.append(grad_norm)
            self._diverged(self.epoch, self.step, "gradient" if finite_loss else "loss")

    def end_step(self, grad_norm: Tensor | None) -> None:
        """End a step; without a norm it changed no weights. Raises Diverged."""
        if grad_norm is not None:
            self.grad_norms.append(grad_norm)
        self.step += 1

    def wait(self) -> None:
        """Wait until all steps so far have been checked. Raises Diverged."""

    def check_validation(self, loss: float, epoch: int, num_steps: int) -> None:
        """Check the validation loss after an epoch: finite weights can give infinite logits. Raises Diverged."""
        if not math.isfinite(loss):
            self._diverged(epoch, num_steps - 1, "loss")

    def _diverged(self, epoch: int, step: int, what: Literal["loss", "gradient"]) -> NoReturn:
        raise Diverged(epoch, step, what)


class DeferredFiniteGuard(FiniteGuard):
    """For a GPU, where reading a loss would wait for it: checks on the device, and reads the result some steps later.

    The optimizer itself skips the first step that is not finite and all after it (torch's fused optimizers do that
    where `found_inf` is 1), so the weights stay those of before that step until it is read.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        super().__init__(watch_gradient=True)
        self.found_inf = torch.zeros((), device=device)
        """1 from the first step on that was not finite."""
        self.number = torch.zeros((), device=device)
        """Of the step that is checked next; a float, exact up to 2**24 steps an epoch."""
        self.first_bad = torch.full((2,), -1.0, device=device)
        """The number of the first step that was not finite, and whether its loss was not (1) or its gradient alone (0);
        -1 while there is none."""
        self.on_host = torch.full((2,), -1.0, pin_memory=device.type == "cuda")  # pinned, or the copy would wait
        self.copied = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]

    def begin(self, epoch: int, step: int) -> None:
        """Start checking an epoch at this step."""
        super().begin(epoch, step)
        self.number.fill_(step)

    def check(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Check a step on the device. Waits for nothing and raises nothing, so it can be part of a CUDA graph."""
        bad_loss = ~torch.isfinite(loss)
        bad = bad_loss | ~torch.isfinite(grad_norm)
        this_step = torch.stack((self.number, bad_loss.float()))
        self.first_bad.copy_(torch.where((self.found_inf == 0) & bad, this_step, self.first_bad))
        self.found_inf.copy_(torch.maximum(self.found_inf, bad.float()))
        self.number.add_(1)

    def end_step(self, grad_norm: Tensor | None) -> None:
        """Read the copy that was begun READ_EVERY steps ago, which has arrived since, and begin the next."""
        super().end_step(grad_norm)
        if grad_norm is None:
            self.number.add_(1)  # such a step was not checked
        if self.step % READ_EVERY == 0:
            self._read()
            self.on_host.copy_(self.first_bad, non_blocking=True)
            if self.copied is not None:
                self.copied.record()

    def wait(self) -> None:
        """Wait until all steps so far have been checked. Raises Diverged."""
        self._read()
        self.on_host.copy_(self.first_bad)
        self._read()

    def device_state(self) -> list[Tensor]:
        """The tensors that `check` writes to."""
        return [self.found_inf, self.number, self.first_bad]

    def _read(self) -> None:
        if self.copied is not None:
            self.copied.synchronize()
        step, bad_loss = (int(value) for value in self.on_host.tolist())
        if step >= 0:
            self._diverged(self.epoch, step, "loss" if bad_loss else "gradient")


def build_finite_guard(optimizer: torch.optim.Optimizer, device: torch.device, *, scaled: bool) -> FiniteGuard:
    """Build the guard for a device; `scaled` if losses are scaled (fp16).

    The deferred guard needs an optimizer that skips steps by itself, as torch's fused ones do.
    """
    fused = all(group.get("fused") for group in optimizer.param_groups)
    if device.type == "cuda" and fused and not scaled:
        return DeferredFiniteGuard(optimizer, device)
    return FiniteGuard(watch_gradient=not scaled)
