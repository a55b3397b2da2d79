"""Images at another size: the same in training, in validation and for a prediction."""

from torch import Tensor
from torch.nn import functional as F


def resize(images: Tensor, size: int, *, antialias: bool) -> Tensor:
    """Square float images (N, C, H, H) as (N, C, size, size), bilinear as torchvision's resize of tensors has it.

    With `antialias` each pixel of a smaller image is an average over all pixels that it stands for; without, over four
    of them at most, and fine patterns turn into coarse ones that are not in the picture. Images are enlarged, or left
    as they are, the same either way.
    """
    if images.shape[-1] == size:
        return images
    smaller = size < images.shape[-1]
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=antialias and smaller)
