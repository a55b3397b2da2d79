"""Measures a run's starting conditions: its splits, the order of the images, and the network before its first step."""

import itertools
import math
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.verdict.beginning import Beginning, LayerStart
from worker.training.batches.loader import EpochBatches, Split, first_images
from worker.training.build import Data
from worker.training.diagnosis.activity import Activity, modes_kept, watching

MOST_IMAGES = 64
MOST_GRADIENT_IMAGES = 32
"""At most half a batch is used, so that it takes no more memory than a training step in any number format."""
MOST_BATCHES = 200
COMPARED_PIXELS = 64
"""Pixels of an image that are compared first; only images that agree in all of them are compared in full."""
MOST_COMPARED_BYTES = 4 * 2**30
"""In larger splits copies are not counted: reading all pixels again would take too long."""


def measure_beginning(network: nn.Module, data: Data, batches: EpochBatches, batch_size: int) -> Beginning | None:
    """Measure a run whose network has its initial weights. None where there is too little memory or one image only.

    Nothing is drawn at random. Modes and flags are restored, running statistics are not: load the weights again.
    """
    if len(data.train) < 2:
        return None
    images = first_images(data.train, data.input_format, MOST_IMAGES)
    labels = data.train.labels[data.train.indices[: len(images)]].to(images.device)
    few = max(2, min(MOST_GRADIENT_IMAGES, batch_size // 2))
    try:
        with modes_kept(network):
            network.eval()  # no dropout
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train()  # as in the first step: its running statistics are those of no images yet
            with watching(network) as activity:
                logits = network(images).float()
            layers = layers_at_start(network, images[:few], labels[:few], activity)
    except torch.OutOfMemoryError:
        return None
    per_batch, expected = classes_in_batches(batches.labels(1).cpu(), batches.edges)
    return Beginning(
        num_train_images=len(data.train),
        num_val_images=len(data.validation),
        shared_images=count_shared(data.train, data.validation),
        classes_per_batch=per_batch,
        classes_expected=expected,
        input_mean=float(images.mean()),
        input_std=float(images.std()),
        num_outputs=logits.shape[1],
        loss=float(F.cross_entropy(logits, labels)),
        output_spread=float(logits.std(dim=0).mean()),
        layers=layers,
    )


def layers_at_start(
    network: nn.Module, images: Tensor, labels: Tensor, activity: dict[str, Activity]
) -> dict[str, LayerStart]:
    """Norms of the weights and gradients of every convolution and linear layer, frozen ones included."""
    modules = {name: one for name, one in network.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    weights = [module.weight for module in modules.values()]
    trained = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            loss = F.cross_entropy(network(images).float(), labels)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    finally:
        for weight, was in zip(weights, trained, strict=True):
            weight.requires_grad_(was)
    return {
        name: LayerStart(
            num_weights=module.weight.numel(),
            weight_norm=_norm(module.weight),
            gradient_norm=0.0 if gradient is None else _norm(gradient),
            silent=name in activity and bool(activity[name].fires_at_most.max() == 0),
        )
        for (name, module), gradient in zip(modules.items(), gradients, strict=True)
    }


def _norm(tensor: Tensor) -> float:
    norm = float(torch.linalg.vector_norm(tensor.detach().float()))
    return norm if math.isfinite(norm) else 0.0


def classes_in_batches(labels: Tensor, edges: Sequence[int]) -> tuple[float, float]:
    """The mean number of different classes in a batch, and what it is for batches drawn at random.

    A class with share p of the images is in a batch of n with probability 1 - (1 - p)^n.
    """
    batches = list(itertools.islice(itertools.pairwise(edges), MOST_BATCHES))
    found = sum(len(torch.unique(labels[start:end])) for start, end in batches) / len(batches)
    shares = torch.bincount(labels).double() / len(labels)
    expected = sum(float((1 - (1 - shares) ** (end - start)).sum()) for start, end in batches) / len(batches)
    return found, expected


def count_shared(train: Split, validation: Split) -> int | None:
    """Validation images that are a training image too, pixel by pixel. None where the splits are too large."""
    size = train.images[0].nbytes
    if (len(train) + len(validation)) * size > MOST_COMPARED_BYTES:
        return None
    seen, asked = _some_pixels(train), _some_pixels(validation)
    common = set(seen).intersection(asked)
    if not common:
        return 0
    known = {_digest(train, place) for place, pixels in enumerate(seen) if pixels in common}
    return sum(pixels in common and _digest(validation, place) in known for place, pixels in enumerate(asked))


def _some_pixels(split: Split) -> list[bytes]:
    pixels = split.images.flatten(1)
    columns = torch.linspace(0, pixels.shape[1] - 1, COMPARED_PIXELS, device=pixels.device).long()
    return [row.tobytes() for row in pixels[split.indices[:, None], columns].cpu().numpy()]


def _digest(split: Split, place: int) -> bytes:
    return blake2b(split.images[split.indices[place]].cpu().contiguous().numpy().tobytes(), digest_size=16).digest()
