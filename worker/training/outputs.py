"""Collects the logits of a split while it is evaluated, and statistics of its images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.evaluation.calibration import calibrate
from models.evaluation.outputs import AboutOutputs, Outputs, SplitName, stride_of
from models.evaluation.probabilities import Floats
from models.evaluation.unknown import image_statistics
from worker.training.batches.loader import Split

PART_BYTES = 8_000_000
"""Bytes of images whose statistics are computed together."""


class SplitOutputs:
    """Collects the logits of a split's images in order: of all of them, or of every n-th of a very large split."""

    def __init__(self, split: SplitName, num_images: int, num_classes: int) -> None:
        self.split: SplitName = split
        self.num_images = num_images
        self.stride = stride_of(num_images, num_classes)
        self.seen = 0
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.statistics: Floats | None = None
        """Of the images whose logits are kept, where a score of unknown images shall be fitted to them."""

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add the next batch: logits (N, K) and labels (N,)."""
        first = -self.seen % self.stride
        self.seen += len(labels)
        self.logits.append(logits[first :: self.stride].cpu())
        self.labels.append(labels[first :: self.stride].cpu())

    def add_statistics(self, split: Split) -> None:
        """Add the statistics of the split's own images."""
        positions = torch.arange(0, self.num_images, self.stride, device=split.indices.device)
        parts = torch.split(positions, max(1, PART_BYTES // split.images[0].nbytes))
        images = (split.take(part, torch.device("cpu"))[0].numpy() for part in parts)
        self.statistics = np.concatenate([image_statistics(part) for part in images])

    def collected(self, epoch: int, class_names: Sequence[str], weights_sha256: str) -> Outputs | None:
        """The collected outputs, with a calibration if this is the validation split. None if a logit is not finite.

        `epoch` and `weights_sha256` say which weights computed them.
        """
        logits = torch.cat(self.logits).float().numpy()
        labels = torch.cat(self.labels).numpy()
        if not np.isfinite(logits).all() or logits.shape[1] != len(class_names):
            return None  # a head kept from ImageNet chooses between more outputs than there are classes
        about = AboutOutputs(
            split=self.split,
            epoch=epoch,
            weights_sha256=weights_sha256,
            num_images=self.num_images,
            class_names=tuple(class_names),
            calibration=calibrate(logits, labels, self.statistics) if self.split == "validation" else None,
        )
        return Outputs(about, logits, labels, np.arange(len(labels), dtype=np.int64) * self.stride)
