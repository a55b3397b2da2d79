"""Means over an epoch so far, summed on the device so that a step does not wait for its loss."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from worker.training.batches.batch import Batch

FLUSH_AFTER = 64
"""Batches whose logits are kept before they are counted: one operation for many small batches."""


class EpochMeans(NamedTuple):
    """The means of an epoch's meters."""

    loss: float
    """Mean cross-entropy per image."""
    accuracy: float
    grad_norm: float
    """Mean per step of the gradient's norm before clipping."""


class EpochMeters:
    """Loss, accuracy and gradient norm of the epoch so far.

    The loss is the plain cross-entropy, without label smoothing or class weights, as a mean per image: the same scale
    as the validation loss, whatever is minimised. It is that of the weights before each step, in training mode. A mixup
    image counts both its labels by lam and 1 - lam, and its accuracy is that of the label with the larger part.

    Logits that wait to be counted are part of the checkpoint, so that a resumed epoch adds up in the same order.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.grad_norm = torch.zeros((), dtype=torch.float64, device=device)
        """These three are sums over what has been counted."""
        self.images = 0
        self.steps = 0
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._mixed: list[tuple[Tensor, Tensor]] = []
        """labels_b and lam of each image; empty without mixup."""
        self._grad_norms: list[Tensor] = []

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count a batch by its logits (N, classes), which must not be written to again."""
        self._logits.append(logits.detach())
        self._labels.append(batch.labels)
        if batch.labels_b is not None:
            lam = torch.full(batch.labels.shape, batch.lam, device=batch.labels.device)
            self._mixed.append((batch.labels_b, lam))
        self.images += len(batch.labels)
        if len(self._logits) >= FLUSH_AFTER:
            self._count_logits()

    def update_step(self, grad_norm: Tensor) -> None:
        """Count a step by its gradient norm."""
        self._grad_norms.append(grad_norm)
        self.steps += 1
        if len(self._grad_norms) >= FLUSH_AFTER:
            self._count_grad_norms()

    def means(self) -> EpochMeans:
        """The means so far. Waits for the device."""
        self._count_logits()
        self._count_grad_norms()
        images, steps = max(1, self.images), max(1, self.steps)
        return EpochMeans(self.loss.item() / images, self.correct.item() / images, self.grad_norm.item() / steps)

    def _count_logits(self) -> None:
        if not self._logits:
            return
        logits, labels = torch.cat(self._logits).float(), torch.cat(self._labels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        if self._mixed:
            labels_b, lam = (torch.cat(values) for values in zip(*self._mixed, strict=True))
            losses = losses * lam + F.cross_entropy(logits, labels_b, reduction="none") * (1 - lam)
            labels = torch.where(lam >= 0.5, labels, labels_b)
        self.loss += losses.sum(dtype=torch.float64)
        self.correct += (logits.argmax(1) == labels).sum()
        self._logits, self._labels, self._mixed = [], [], []

    def _count_grad_norms(self) -> None:
        if self._grad_norms:
            self.grad_norm += torch.stack(self._grad_norms).sum(dtype=torch.float64)
            self._grad_norms = []

    def state_dict(self) -> dict[str, Any]:
        """The sums and the logits not yet counted."""
        return {
            "loss": self.loss,
            "correct": self.correct,
            "grad_norm": self.grad_norm,
            "images": self.images,
            "steps": self.steps,
            "logits": self._logits,
            "labels": self._labels,
            "mixed": self._mixed,
            "grad_norms": self._grad_norms,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved sums."""
        device = self.loss.device
        self.loss, self.correct = state["loss"].to(device), state["correct"].to(device)
        self.grad_norm = state["grad_norm"].to(device)
        self.images, self.steps = state["images"], state["steps"]
        self._logits, self._labels, self._grad_norms = (
            [tensor.to(device) for tensor in state[name]] for name in ("logits", "labels", "grad_norms")
        )
        self._mixed = [(labels_b.to(device), lam.to(device)) for labels_b, lam in state["mixed"]]


class ClassCounts:
    """Counts the measured images of each class, and the correctly classified ones."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._images = self._correct = torch.zeros(num_classes, dtype=torch.int64)

    def add(self, labels: Tensor, is_correct: Tensor) -> None:
        """Count a batch: its labels, and whether each image is classified correctly. Does not wait for a device."""
        images = torch.bincount(labels, minlength=self._num_classes)
        correct = torch.bincount(labels[is_correct], minlength=self._num_classes)
        self._images, self._correct = self._images.to(images.device) + images, self._correct.to(images.device) + correct

    def accuracies(self) -> list[float | None]:
        """The accuracy of each class (its recall); None for a class without images."""
        pairs = zip(self._correct.tolist(), self._images.tolist(), strict=True)
        return [correct / images if images else None for correct, images in pairs]
