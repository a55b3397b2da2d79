"""What training minimises."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import SpecError
from models.spec.experiment import ExperimentSpec
from worker.training.batches import Batch, Split


class Objective:
    """Cross-entropy with the label smoothing, class weights and mixed labels that the spec asks for."""

    def __init__(self, spec: ExperimentSpec, split: Split, num_classes: int, device: torch.device) -> None:
        self.smoothing = spec.label_smoothing
        self.weights = _class_weights(spec, split, num_classes, device)

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        loss = self._cross_entropy(outputs, batch.labels)
        if batch.other_labels is None:
            return loss
        return loss * batch.share + self._cross_entropy(outputs, batch.other_labels) * (1 - batch.share)

    def _cross_entropy(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels, weight=self.weights, label_smoothing=self.smoothing)


def _class_weights(spec: ExperimentSpec, split: Split, num_classes: int, device: torch.device) -> Tensor | None:
    if spec.class_weights is None:
        return None
    if spec.class_weights == "balanced":  # inverse frequency, 1 on average over the images; absent classes weigh 0
        counts = torch.bincount(split.labels[split.indices], minlength=num_classes).float()
        weights = len(split) / (num_classes * counts)
        return torch.where(counts > 0, weights, 0.0).to(device)
    if len(spec.class_weights) != num_classes:
        message = f"has {len(spec.class_weights)} weights for {num_classes} classes; give {num_classes}, or 'balanced'"
        raise SpecError([{"field": "class_weights", "message": message, "nearest": "balanced"}])
    return torch.tensor(spec.class_weights, device=device)
