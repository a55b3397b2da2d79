"""The loss that training minimises."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import SpecError
from models.spec.experiment import ExperimentSpec
from worker.training.batches.batch import Batch, MicroBatch
from worker.training.batches.loader import Split


class Criterion:
    """Cross-entropy with the label smoothing, class weights and mixup labels that the spec asks for.

    It is a weighted mean, as torch's cross_entropy with `weight` is: an image weighs what its class weighs, or 1. A
    batch whose images all weigh 0 has no such mean (0 / 0), and no part in training.
    """

    def __init__(self, spec: ExperimentSpec, split: Split, num_classes: int, device: torch.device) -> None:
        self.label_smoothing = spec.label_smoothing
        self.class_weights = _class_weights(spec, split, num_classes, device)
        """float32 (num_classes,), or None where all weigh 1."""

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The mean over a batch, whose images must not all weigh 0. Logits are (N, num_classes)."""
        loss = self._cross_entropy(logits, batch.labels)
        if batch.labels_b is None:
            return loss
        return loss * batch.lam + self._cross_entropy(logits, batch.labels_b) * (1 - batch.lam)

    def micro_batch_loss(self, logits: Tensor, micro_batch: MicroBatch) -> Tensor:
        """A micro-batch's part of its step's loss: the parts add up to the mean over all images of the step."""
        if micro_batch.weight == micro_batch.step_weight:  # the usual case, and one multiplication less
            return self(logits, micro_batch.batch)
        if self.class_weights is None:
            return self(logits, micro_batch.batch) * (micro_batch.weight / micro_batch.step_weight)
        # A sum, since this micro-batch may weigh 0 and have no mean. With label smoothing it still adds something: the
        # smoothed part of a target counts by the weights of all classes, whatever the image's own class weighs. Mixup
        # does not go with class weights (ExperimentSpec refuses it), so there are no labels_b here.
        return self._cross_entropy(logits, micro_batch.batch.labels, reduction="sum") / micro_batch.step_weight

    def weights_of(self, labels: Tensor, edges: Sequence[int]) -> list[float]:
        """The weight of each batch labels[edges[i]:edges[i + 1]]. Waits for the device if there are class weights."""
        if self.class_weights is None:
            return [float(count) for count in np.diff(edges)]
        weights = self.class_weights[labels].double().cpu().numpy()
        return [float(weight) for weight in np.add.reduceat(weights, edges[:-1])]

    def has_weight(self, batch: Batch) -> bool:
        """Whether any image of a batch weighs more than 0, so that it has a mean."""
        return self.weights_of(batch.labels, (0, len(batch)))[0] > 0

    def _cross_entropy(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(
            logits, labels, weight=self.class_weights, label_smoothing=self.label_smoothing, reduction=reduction
        )


def _class_weights(spec: ExperimentSpec, split: Split, num_classes: int, device: torch.device) -> Tensor | None:
    if spec.class_weights is None:
        return None
    counts = torch.bincount(split.labels[split.indices], minlength=num_classes).float()
    if spec.class_weights == "balanced":  # inverse frequency, 1 on average over the images; absent classes weigh 0
        weights = len(split) / (num_classes * counts)
        return torch.where(counts > 0, weights, 0.0).to(device)
    if len(spec.class_weights) != num_classes:
        message = f"has {len(spec.class_weights)} weights for {num_classes} classes; give {num_classes}, or 'balanced'"
        raise SpecError([{"field": "class_weights", "message": message, "nearest": "balanced"}])
    given = torch.tensor(spec.class_weights, device=counts.device)
    if not bool((given * counts).any()):
        message = f"is 0 for every class that the {len(split)} training images have, so no image would be trained on"
        raise SpecError([{"field": "class_weights", "message": message, "nearest": "balanced"}])
    return given.to(device)
