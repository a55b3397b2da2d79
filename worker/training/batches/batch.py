"""The types of a batch, and of a batch as part of a step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Images ready for the network, float32 (N, C, H, W), with their labels, int64 (N,).

    Where mixup was applied each image is `lam` times one image plus 1 - `lam` times another, whose labels are
    `labels_b` (lambda and y_b of Zhang et al. 2018).
    """

    images: Tensor
    labels: Tensor
    labels_b: Tensor | None = None
    lam: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Batch":
        """Its first `count` images, or all if it has fewer."""
        labels_b = None if self.labels_b is None else self.labels_b[:count]
        return Batch(self.images[:count], self.labels[:count], labels_b, self.lam)


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """A batch as part of a step: the whole of it, or one of several whose gradients are added up.

    The gradient of a step is that of the mean loss over all its images, so each micro-batch counts by
    `weight / step_weight`: micro-batches differ in size at the end of an epoch, and in their classes' weights.
    """

    batch: Batch
    weight: float
    """The sum of its images' weights: their number, or with class weights the sum of their classes' weights."""
    step_weight: float
    """The same over all images of the step. A step that weighs 0 has no gradient and changes nothing."""
    ends_step: bool = True
    """Whether it is the last of its step, after which the optimizer updates the weights."""
