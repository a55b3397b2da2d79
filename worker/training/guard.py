"""Notices the first step whose loss or gradient is not finite, before that step touches the weights."""

import math
from collections import deque
from typing import Literal

import torch
from torch import Tensor

REMEMBERED_NORMS = 64
LOOK_EVERY = 8
"""Steps between two looks of DeferredGuard, which learns of a step at most twice as many steps later."""


class Diverged(Exception):
    """A loss, gradient or weight that is not finite. `step` counts from 0; the weights are those of before it."""

    def __init__(self, epoch: int, step: int, what: Literal["loss", "gradient", "weight"]) -> None:
        super().__init__(f"the {what} stopped being finite at step {step + 1} of epoch {epoch}")
        self.epoch = epoch
        self.step = step
        self.what = what


class Guard:
    """Looks at every step's loss and gradient norm. On a CPU they are there already, so looking costs nothing."""

    def __init__(self, *, watch_gradient: bool) -> None:
        self.watch_gradient = watch_gradient
        """False with loss scaling, which leaves out steps whose gradient overflows and goes on."""
        self.norms: deque[Tensor] = deque(maxlen=REMEMBERED_NORMS)
        """The gradient norms of the last steps."""
        self.epoch = self.step = 0

    def begin(self, epoch: int, step: int) -> None:
        """An epoch begins, or goes on, at this step."""
        self.epoch, self.step = epoch, step

    def note(self, loss: Tensor, norm: Tensor) -> None:
        """Take the loss and gradient norm of a step whose weights are about to be changed. Raises Diverged."""
        bad_loss = not math.isfinite(loss)
        if bad_loss or (self.watch_gradient and not math.isfinite(norm)):
            self.norms.append(norm)
            raise Diverged(self.epoch, self.step, "loss" if bad_loss else "gradient")

    def look(self, norm: Tensor | None) -> None:
        """A step is done; without a norm, one that changed nothing."""
        if norm is not None:
            self.norms.append(norm)
        self.step += 1

    def settle(self) -> None:
        """The last step of an epoch is done."""


class DeferredGuard(Guard):
    """For a GPU, where looking would wait for it: notes on the device whether a step was finite, and looks later.

    A step that was not, and all after it, are left out by the optimizer itself (torch's fused optimizers do that where
    `found_inf` is 1), so the weights stay those of before it until the note is read.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        super().__init__(watch_gradient=True)
        self.skip = torch.zeros((), device=device)
        """1 from the first step on that was not finite."""
        self.number = torch.zeros((), device=device)
        """Of the step that is noted next."""
        self.noted = torch.full((2,), -1.0, device=device)
        """The number of the first step that was not finite, and whether its loss was (1) or its gradient alone (0)."""
        self.seen = torch.full((2,), -1.0, pin_memory=device.type == "cuda")
        self.copied = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        optimizer.found_inf = self.skip  # type: ignore[attr-defined]

    def begin(self, epoch: int, step: int) -> None:
        """An epoch begins, or goes on, at this step."""
        super().begin(epoch, step)
        self.number.fill_(step)

    def note(self, loss: Tensor, norm: Tensor) -> None:
        """Note on the device whether the step is finite. Waits for nothing, so it can be part of a CUDA graph."""
        bad_loss = ~torch.isfinite(loss)
        bad = bad_loss | ~torch.isfinite(norm)
        this_step = torch.stack((self.number, bad_loss.float()))
        self.noted.copy_(torch.where((self.skip == 0) & bad, this_step, self.noted))
        self.skip.copy_(torch.maximum(self.skip, bad.float()))
        self.number.add_(1)

    def look(self, norm: Tensor | None) -> None:
        """Read the note that was sent LOOK_EVERY steps ago, which has arrived long since, and send for the next."""
        super().look(norm)
        if norm is None:
            self.number.add_(1)
        if self.step % LOOK_EVERY == 0:
            self._read()
            self.seen.copy_(self.noted, non_blocking=True)
            if self.copied is not None:
                self.copied.record()

    def settle(self) -> None:
        """The last step of an epoch is done: wait for its note."""
        self._read()
        self.seen.copy_(self.noted)
        self._read()

    def _read(self) -> None:
        if self.copied is not None:
            self.copied.synchronize()
        step, bad_loss = (int(value) for value in self.seen.tolist())
        if step >= 0:
            raise Diverged(self.epoch, step, "loss" if bad_loss else "gradient")


def build_guard(optimizer: torch.optim.Optimizer, device: torch.device, *, scaled: bool) -> Guard:
    """The guard for a device. One that looks later needs an optimizer that leaves out steps by itself."""
    leaves_out = all(group.get("fused") for group in optimizer.param_groups)
    if device.type == "cuda" and leaves_out and not scaled:
        return DeferredGuard(optimizer, device)
    return Guard(watch_gradient=not scaled)
