"""A run's starting conditions, which worker.training measures for the last verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayerStart:
    """One convolution or linear layer before the first step, on some training images."""

    num_weights: int
    weight_norm: float
    gradient_norm: float
    """Of the cross-entropy's gradient by its weights; 0 where none arrives."""
    silent: bool = False
    """Whether the ReLU behind it was zero everywhere for every image."""


@dataclass(frozen=True)
class Beginning:
    """The splits of a run, the batches of its first epoch, and its network before the first step."""

    num_train_images: int
    num_val_images: int
    shared_images: int | None
    """Validation images that are, pixel by pixel, a training image too; None if that was not measured."""
    classes_per_batch: float
    """Different classes in a batch of the first epoch, the mean over its batches."""
    classes_expected: float
    """The same for batches drawn at random."""
    input_mean: float
    """Of all values of the network's inputs."""
    input_std: float
    num_outputs: int
    loss: float
    """Cross-entropy; ln(classes) for a network that gives every class the same probability."""
    output_spread: float
    """Standard deviation of an output from image to image, the mean over the outputs."""
    layers: Mapping[str, LayerStart] = field(default_factory=dict)
    """By the layer's name, in the network's order."""
