"""From uint8 images to a network's input. Training, validation and predictions all call `network_input`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.data.info import DatasetInfo
from models.networks.family import family_of
from models.preprocessing import Preprocessing
from models.spec.experiment import ExperimentSpec


def preprocessing_for(spec: ExperimentSpec, info: DatasetInfo) -> Preprocessing:
    """The preprocessing of an experiment, for training, validation and predictions.

    The family decides on channels and normalisation. Gray images are repeated to a network's three channels.
    """
    family = family_of(spec.model)
    normalisation = family.normalisation(spec.model, info)
    return Preprocessing(
        channels=normalisation.channels,
        source_size=info.size,
        input_size=family.input_size(spec.model, info),
        mean=normalisation.mean,
        std=normalisation.std,
        class_names=info.class_names,
        grayscale=info.channels == 1,
        antialias=not spec.is_version_1,
        fit=info.fit,
    )


def network_input(
    images: Tensor,
    preprocessing: Preprocessing,
    *,
    size: int | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Normalise images, then resize them: float32 (N, channels, size, size) in the memory format, on their device.

    `images` are square: uint8 (N, C, H, H), or floats from 0 to 1 where augmentation has worked on them already. C is 1
    or the network's channels. `size` is the network's input size unless given. `augment` works on normalised images
    before they are resized; 0 is the mean colour there.
    """
    normalised = _normalise(images, preprocessing, memory_format)
    if augment is not None:
        normalised = augment(normalised)
    resized = resize(normalised, size or preprocessing.input_size, antialias=preprocessing.antialias)
    return resized.contiguous(memory_format=memory_format)


def _normalise(images: Tensor, preprocessing: Preprocessing, memory_format: torch.memory_format) -> Tensor:
    unit = 1.0 if images.is_floating_point() else 255.0
    if torch.onnx.is_in_onnx_export():  # the same arithmetic without `out`, which cannot be exported
        scale = torch.tensor([1 / (unit * std) for std in preprocessing.std]).view(-1, 1, 1)
        shift = torch.tensor([-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)])
        return images.float() * scale + shift.view(-1, 1, 1)
    images = images.expand(-1, preprocessing.channels, -1, -1)  # a gray image for a network of three channels
    normalised = torch.empty(images.shape, device=images.device, memory_format=memory_format)
    # a channel at a time: read, converted, scaled and written to its place in one pass over memory
    for channel, (mean, std) in enumerate(zip(preprocessing.mean, preprocessing.std, strict=True)):
        shift = torch.full((), -mean / std, device=images.device)
        torch.add(shift, images[:, channel], alpha=1 / (unit * std), out=normalised[:, channel])
    return normalised


def resize(images: Tensor, size: int, *, antialias: bool) -> Tensor:
    """Square float images (N, C, H, H) as (N, C, size, size), bilinear as torchvision's resize of tensors has it.

    With `antialias` each pixel of a smaller image is an average over all pixels that it covers; without, over at most
    four of them, which aliases fine patterns into coarse ones. Enlarging does not depend on it.
    """
    if images.shape[-1] == size:
        return images
    smaller = size < images.shape[-1]
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=antialias and smaller)
