"""An epoch's sums, kept as tensors so that a step never waits for its own figures."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.training.batches.loader import Batch

FLUSH_AFTER = 64
"""Batches whose outputs are kept before they are counted: one operation for many small batches."""


class Tally:
    """Loss, accuracy and gradient norm of the epoch so far.

    The loss is the plain cross-entropy, without smoothing or class weights, as a mean per image: the same scale as the
    validation loss, whatever is optimised. Mixed batches count the share of each label; their accuracy is that of the
    label with the larger share. Kept outputs are in the checkpoint, so that a resumed epoch adds up in the same order.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.norm = torch.zeros((), dtype=torch.float64, device=device)
        self.images = 0
        self.steps = 0
        self._outputs: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._shares: list[tuple[Tensor, Tensor]] = []
        self._norms: list[Tensor] = []

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Count a batch by its outputs."""
        self._outputs.append(outputs.detach())
        self._labels.append(batch.labels)
        if batch.other_labels is not None:
            share = torch.full(batch.labels.shape, batch.share, device=batch.labels.device)
            self._shares.append((batch.other_labels, share))
        self.images += len(batch.labels)
        if len(self._outputs) >= FLUSH_AFTER:
            self._count_outputs()

    def add_step(self, norm: Tensor) -> None:
        """Count a step by its gradient norm."""
        self._norms.append(norm)
        self.steps += 1
        if len(self._norms) >= FLUSH_AFTER:
            self._count_norms()

    def means(self) -> tuple[float, float, float]:
        """Mean loss per image, accuracy and mean gradient norm per step. Waits for the device."""
        self._count_outputs()
        self._count_norms()
        images, steps = max(1, self.images), max(1, self.steps)
        return self.loss.item() / images, self.correct.item() / images, self.norm.item() / steps

    def _count_outputs(self) -> None:
        if not self._outputs:
            return
        outputs, labels = torch.cat(self._outputs).float(), torch.cat(self._labels)
        losses = F.cross_entropy(outputs, labels, reduction="none")
        if self._shares:
            others, shares = (torch.cat(parts) for parts in zip(*self._shares, strict=True))
            losses = losses * shares + F.cross_entropy(outputs, others, reduction="none") * (1 - shares)
            labels = torch.where(shares >= 0.5, labels, others)
        self.loss += losses.sum(dtype=torch.float64)
        self.correct += (outputs.argmax(1) == labels).sum()
        self._outputs, self._labels, self._shares = [], [], []

    def _count_norms(self) -> None:
        if self._norms:
            self.norm += torch.stack(self._norms).sum(dtype=torch.float64)
            self._norms = []

    def state_dict(self) -> dict[str, Any]:
        """The sums and what waits to be counted."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting where another tally was."""
        device = self.loss.device

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device)
            return type(value)(moved(item) for item in value) if isinstance(value, list | tuple) else value

        vars(self).update({name: moved(value) for name, value in state.items()})
