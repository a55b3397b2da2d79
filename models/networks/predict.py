"""The forward pass of validation and of predictions."""

from torch import Tensor, nn


def predict(network: nn.Module, images: Tensor, test_time_augmentation: str) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W); 'mirror' averages those of an image and its mirror image."""
    outputs: Tensor = network(images)
    if test_time_augmentation == "mirror":
        outputs = (outputs + network(images.flip(3))) / 2
    return outputs
