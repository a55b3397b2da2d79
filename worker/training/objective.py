"""What training minimises."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import SpecError
from models.spec.experiment import ExperimentSpec
from worker.training.batches.loader import Batch, Part, Split


class Objective:
    """Cross-entropy with the label smoothing, class weights and mixed labels that the spec asks for.

    It is a mean by weight, as torch's cross_entropy has it: an image weighs what its class weighs, or 1. A batch whose
    images weigh 0 together has no such mean, and contributes nothing to training.
    """

    def __init__(self, spec: ExperimentSpec, split: Split, num_classes: int, device: torch.device) -> None:
        self.smoothing = spec.label_smoothing
        self.weights = _class_weights(spec, split, num_classes, device)

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over a batch that weighs something."""
        loss = self._cross_entropy(outputs, batch.labels)
        if batch.other_labels is None:
            return loss
        return loss * batch.share + self._cross_entropy(outputs, batch.other_labels) * (1 - batch.share)

    def part(self, outputs: Tensor, part: Part) -> Tensor:
        """What a batch adds to the mean over its step: the parts add up to the mean over one batch of all images."""
        if part.weight == part.step_weight:
            return self(outputs, part.batch)
        if self.weights is None:
            return self(outputs, part.batch) * (part.weight / part.step_weight)
        # mixed labels do not go with class weights; smoothed targets count where the image's own class weighs 0, too
        return self._cross_entropy(outputs, part.batch.labels, reduction="sum") / part.step_weight

    def weights_of(self, labels: Tensor, edges: Sequence[int]) -> list[float]:
        """What the images edges[i]:edges[i + 1] weigh together. Waits for the device if there are class weights."""
        if self.weights is None:
            return [float(count) for count in np.diff(edges)]
        weights = self.weights[labels].double().cpu().numpy()
        return [float(weight) for weight in np.add.reduceat(weights, edges[:-1])]

    def weighs(self, batch: Batch) -> bool:
        """Whether there is anything to learn from a batch."""
        return self.weights_of(batch.labels, (0, len(batch)))[0] > 0

    def _cross_entropy(self, outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(
            outputs, labels, weight=self.weights, label_smoothing=self.smoothing, reduction=reduction
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
        message = f"is 0 for every class that the {len(split)} training images have, which leaves nothing to learn"
        raise SpecError([{"field": "class_weights", "message": message, "nearest": "balanced"}])
    return given.to(device)
