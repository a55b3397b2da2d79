"""Notices the first step whose loss or gradient is not finite, before that step touches the weights."""

import math
from collections import deque
from typing import Literal

import torch
from torch import Tensor, nn

from worker.training.batches import Batch

REMEMBERED_NORMS = 64
LOOK_EVERY = 8
"""Steps between two looks of DeferredGuard. It learns of a step at most twice as many steps later."""


class Diverged(Exception):
    """A loss, gradient or weight that is not finite. `step` counts from 0; the weights are those of before it."""

    def __init__(
        self, epoch: int, step: int, what: Literal["loss", "gradient", "weight"], batch: Batch | None = None
    ) -> None:
        super().__init__(f"the {what} stopped being finite at step {step + 1} of epoch {epoch}")
        self.epoch = epoch
        self.step = step
        self.what = what
        self.batch = batch


class Guard:
    """Looks at every step's loss and gradient norm. On a CPU they are there already, so looking costs nothing."""

    def __init__(self, *, watch_gradient: bool) -> None:
        self.watch_gradient = watch_gradient
        """False with loss scaling, which leaves out steps whose gradient overflows and goes on."""
        self.norms: deque[Tensor] = deque(maxlen=REMEMBERED_NORMS)
        """The last steps' gradient norms, this one's included."""

    def check(self, epoch: int, step: int, loss: Tensor, norm: Tensor, batch: Batch) -> None:
        """Raise Diverged unless this step is finite. Called before the weights are changed."""
        self.norms.append(norm)
        if not math.isfinite(loss):
            raise Diverged(epoch, step, "loss", batch)
        if self.watch_gradient and not math.isfinite(norm):
            raise Diverged(epoch, step, "gradient", batch)

    def settle(self) -> None:
        """Raise Diverged for a step that has not been looked at yet. Called at the end of an epoch."""


class DeferredGuard(Guard):
    """For a GPU, where looking would wait for it: notes on the device whether a step was finite, and looks later.

    A step that was not, and all after it, are left out by the optimizer itself (torch's fused optimizers do that where
    `found_inf` is 1), so the weights stay those of before it until the note is read.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, *, watch_gradient: bool) -> None:
        super().__init__(watch_gradient=watch_gradient)
        self.skip = torch.zeros((), device=device)
        """1 from the first step on that was not finite."""
        self.note = torch.full((2,), -1.0, device=device)
        """That step's number, and whether its loss (0) or its gradient (1) was the first that was not finite."""
        self.seen = torch.full((2,), -1.0, pin_memory=device.type == "cuda")
        self.copied = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.recent: deque[tuple[int, Batch]] = deque(maxlen=2 * LOOK_EVERY + 1)
        self.epoch = 0
        self.looked = False
        optimizer.found_inf = self.skip  # type: ignore[attr-defined]

    def check(self, epoch: int, step: int, loss: Tensor, norm: Tensor, batch: Batch) -> None:
        """Note whether this step is finite; now and then raise Diverged for an earlier one."""
        self.norms.append(norm)
        self.recent.append((step, batch))
        self.epoch = epoch
        finite_loss = torch.isfinite(loss)
        finite = finite_loss & torch.isfinite(norm) if self.watch_gradient else finite_loss
        this_step = torch.stack((torch.full_like(self.skip, step), finite_loss.float()))
        self.note.copy_(torch.where((self.skip == 0) & ~finite, this_step, self.note))
        self.skip.copy_(torch.maximum(self.skip, (~finite).float()))
        if step % LOOK_EVERY == 0:
            self._look()
            self.seen.copy_(self.note, non_blocking=True)
            if self.copied is not None:
                self.copied.record()
            self.looked = True

    def settle(self) -> None:
        """Wait for the device and look."""
        self.seen.copy_(self.note)
        self.looked = True
        if self.copied is not None:
            self.copied.record()
        self._look()

    def _look(self) -> None:
        """Look at the note that was copied LOOK_EVERY steps ago: it has arrived long since."""
        if not self.looked:
            return
        if self.copied is not None:
            self.copied.synchronize()
        step, in_gradient = (int(value) for value in self.seen.tolist())
        if step >= 0:
            batch = next((batch for number, batch in self.recent if number == step), None)
            raise Diverged(self.epoch, step, "gradient" if in_gradient == 1 else "loss", batch)


def build_guard(optimizer: torch.optim.Optimizer, device: torch.device, *, scaled: bool) -> Guard:
    """The guard for a device. One that looks later needs an optimizer that leaves out steps by itself."""
    leaves_out = all(group.get("fused") for group in optimizer.param_groups)
    if device.type == "cuda" and leaves_out and not scaled:
        return DeferredGuard(optimizer, device, watch_gradient=True)
    return Guard(watch_gradient=not scaled)


def gradient_norm(parameters: list[nn.Parameter], largest: float | None) -> Tensor:
    """The norm of the whole gradient, which is scaled down to `largest` if it is above that."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm, foreach=True)
    return norm
