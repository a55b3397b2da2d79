"""From resident images to batches ready to train on.

The images of a split stay where they are as one uint8 tensor (memory-mapped and shared by every process on this
machine, or on the GPU). A chunk of several batches is prepared at once: gathered by index, augmented, normalised,
resized. Large tensor operations cost little each, and a thread can prepare the next chunk while the current one is
trained on.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.networks.resizing import resize
from models.spec.data import AugmentationSpec
from worker.training.batches import augmentation
from worker.training.seeds import Stream, derive_seed, generator


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split. `images` is the whole uint8 tensor (N, C, H, W); `indices` says which belong."""

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, positions: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and labels at positions of this split, on a device."""
        chosen = self.indices[positions]
        images, labels = self.images.index_select(0, chosen), self.labels.index_select(0, chosen)
        return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


@dataclass(frozen=True)
class InputFormat:
    """What the network takes: normalised by mean and std (of pixels in 0..1), resized to `size`, in this layout."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    memory_format: torch.memory_format
    device: torch.device
    antialias: bool = True

    def normalise(self, images: Tensor) -> Tensor:
        """Images normalised: uint8 ones, or floats in 0..1."""
        unit = 1.0 if images.is_floating_point() else 255.0
        images = images.expand(-1, len(self.mean), -1, -1)  # a gray image is repeated for a network of three channels
        normalised = torch.empty(images.shape, device=images.device, memory_format=self.memory_format)
        # a channel at a time: read, converted, scaled and written to its place in one pass over memory
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            shift = torch.full((), -mean / std, device=images.device)
            torch.add(shift, images[:, channel], alpha=1 / (unit * std), out=normalised[:, channel])
        return normalised

    def resize(self, images: Tensor, size: int) -> Tensor:
        """Float images at another size."""
        if images.shape[-1] == size:
            return images
        return resize(images, size, antialias=self.antialias).contiguous(memory_format=self.memory_format)


@dataclass(frozen=True, eq=False)
class Batch:
    """Images ready for the network with their labels; mixed ones have a second label each and the first one's share."""

    images: Tensor
    labels: Tensor
    other_labels: Tensor | None = None
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Part:
    """A batch as part of a step: the whole of it, or one of several whose gradients are added up."""

    batch: Batch
    weight: float
    """What its images weigh: how many they are, or what their classes weigh together."""
    step_weight: float
    """What all images of the step weigh. A step that weighs 0 changes nothing."""
    completes: bool = True
    """Whether it is the step's last."""


def batch_edges(num_images: int, batch_size: int) -> list[int]:
    """Where batches begin and end: batch i is edges[i]:edges[i + 1].

    A last batch of one image joins the one before it: batch normalisation cannot train on a single image.
    """
    edges = [*range(0, num_images, batch_size), num_images]
    if len(edges) > 2 and edges[-1] - edges[-2] == 1:
        del edges[-2]
    return edges


class EpochBatches:
    """The batches of any epoch, in an order and with an augmentation that depend on the seed and the epoch only."""

    def __init__(
        self,
        split: Split,
        input_format: InputFormat,
        spec: AugmentationSpec,
        *,
        batch_size: int,
        seed: int,
        chunk_images: int,
        prefetch: bool,
    ) -> None:
        self.split = split
        self.input_format = input_format
        self.spec = spec
        self.seed = seed
        self.edges = batch_edges(len(split), batch_size)
        self.chunk_batches = max(1, chunk_images // batch_size)
        self.prefetch = prefetch

    def __len__(self) -> int:
        return len(self.edges) - 1

    def order(self, epoch: int) -> Tensor:
        """The positions of the split's images in the order in which an epoch shows them."""
        device = self.split.labels.device
        return torch.randperm(
            len(self.split), generator=generator(device, self.seed, Stream.ORDER, epoch), device=device
        )

    def labels(self, epoch: int) -> Tensor:
        """The labels in that order."""
        return self.split.labels[self.split.indices[self.order(epoch)]]

    def iterate(self, epoch: int, size: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on, as images of `size` pixels."""
        order = self.order(epoch)

        def prepare(chunk: int) -> list[Batch]:
            return self._prepare(order, epoch, chunk, size)

        chunks = range(first // self.chunk_batches, math.ceil(len(self) / self.chunk_batches))
        skip = first % self.chunk_batches
        for batches in _ahead(prepare, chunks) if self.prefetch else map(prepare, chunks):
            yield from batches[skip:]
            skip = 0

    def _prepare(self, order: Tensor, epoch: int, chunk: int, size: int) -> list[Batch]:
        """Prepare one chunk. Always the whole of it, so that a run resumed inside it sees the same images."""
        first = chunk * self.chunk_batches
        edges = self.edges[first : first + self.chunk_batches + 1]
        images, labels = self.split.take(order[edges[0] : edges[-1]], self.input_format.device)
        images = self._augment(images, epoch, chunk, size)
        offsets = [edge - edges[0] for edge in edges]
        batches = [Batch(images[start:end], labels[start:end]) for start, end in itertools.pairwise(offsets)]
        return self._mix(batches, epoch, chunk) if self.spec.mixup_alpha else batches

    def _augment(self, images: Tensor, epoch: int, chunk: int, size: int) -> Tensor:
        rng = generator(images.device, self.seed, Stream.AUGMENTATION, epoch, chunk)
        input_format, spec = self.input_format, self.spec
        if augmentation.moves_pixels(spec):
            images = augmentation.move_pixels(images, spec, rng)
        if any(spec.color_jitter.model_dump().values()):
            images = augmentation.jitter_colors(images.float().div_(255), spec, rng)
        images = input_format.normalise(images)
        if spec.cutout_pixels or spec.random_erase:
            images = augmentation.erase(images, spec, rng)
        return input_format.resize(images, size)

    def _mix(self, batches: Sequence[Batch], epoch: int, chunk: int) -> list[Batch]:
        numbers = np.random.default_rng(derive_seed(self.seed, Stream.MIXUP, epoch, chunk))
        mixed = []
        for batch in batches:
            share = float(numbers.beta(self.spec.mixup_alpha, self.spec.mixup_alpha))
            partners = torch.from_numpy(numbers.permutation(len(batch))).to(batch.labels.device)
            images = augmentation.mix(batch.images, share, partners)
            mixed.append(Batch(images, batch.labels, batch.labels[partners], share))
        return mixed


def plain_batches(split: Split, input_format: InputFormat, batch_size: int) -> Iterator[Batch]:
    """The images of a split in order and as they are, for measuring."""
    for positions in torch.split(torch.arange(len(split), device=split.indices.device), batch_size):
        images, labels = split.take(positions, input_format.device)
        yield Batch(input_format.resize(input_format.normalise(images), input_format.size), labels)


def first_images(split: Split, input_format: InputFormat, count: int) -> Tensor:
    """The first images of a split as they are measured."""
    return next(plain_batches(split, input_format, count)).images


def _ahead(prepare: Callable[[int], list[Batch]], chunks: Sequence[int]) -> Iterator[list[Batch]]:
    """prepare() of each chunk, the next one in a thread while the current one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        ready = pool.submit(prepare, chunks[0])
        for following in chunks[1:]:
            current, ready = ready.result(), pool.submit(prepare, following)
            yield current
        yield ready.result()
