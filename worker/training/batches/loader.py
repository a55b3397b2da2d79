"""Turns images in memory into batches for training.

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
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.networks.inputs import network_input
from models.preprocessing import Preprocessing
from models.spec.data import AugmentationSpec
from worker.training.batches import augmentation
from worker.training.batches.batch import Batch
from worker.training.seeds import Stream, derive_seed, generator


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split. `images` is the whole uint8 tensor (N, C, H, W); `indices` selects this split's."""

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
    """The format of the network's input: size, channels, memory layout and device."""

    preprocessing: Preprocessing
    memory_format: torch.memory_format
    device: torch.device

    @property
    def size(self) -> int:
        """The side of the network's input in pixels."""
        return self.preprocessing.input_size

    def prepare(
        self, images: Tensor, size: int | None = None, augment: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Convert images to the network's input: see `network_input`."""
        return network_input(images, self.preprocessing, size=size, memory_format=self.memory_format, augment=augment)


def batch_edges(num_images: int, batch_size: int) -> list[int]:
    """The edges of batches: batch i is edges[i]:edges[i + 1].

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
        balanced: bool = False,
    ) -> None:
        self.split = split
        self.input_format = input_format
        self.spec = spec
        self.seed = seed
        self.edges = batch_edges(len(split), batch_size)
        self.chunk_batches = max(1, chunk_images // batch_size)
        self.prefetch = prefetch
        self.balanced = balanced
        """Whether an epoch shows each class equally often."""

    def __len__(self) -> int:
        return len(self.edges) - 1

    def order(self, epoch: int) -> Tensor:
        """The positions of the split's images in the order in which an epoch shows them."""
        device = self.split.labels.device
        if self.balanced:
            labels = self.split.labels[self.split.indices].cpu()
            return balanced_order(labels, generator(labels.device, self.seed, Stream.ORDER, epoch)).to(device)
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
        """Prepare one chunk, always all of it, so that a run resumed within it gets the same images."""
        first = chunk * self.chunk_batches
        edges = self.edges[first : first + self.chunk_batches + 1]
        images, labels = self.split.take(order[edges[0] : edges[-1]], self.input_format.device)
        images = self._augment(images, epoch, chunk, size)
        offsets = [edge - edges[0] for edge in edges]
        batches = [Batch(images[start:end], labels[start:end]) for start, end in itertools.pairwise(offsets)]
        return self._mixup(batches, epoch, chunk) if self.spec.mixup_alpha else batches

    def _augment(self, images: Tensor, epoch: int, chunk: int, size: int) -> Tensor:
        rng = generator(images.device, self.seed, Stream.AUGMENTATION, epoch, chunk)
        input_format, spec = self.input_format, self.spec
        if augmentation.moves_pixels(spec):
            images = augmentation.move_pixels(images, spec, rng)
        if any(spec.color_jitter.model_dump().values()):
            images = augmentation.jitter_colors(images.float().div_(255), spec, rng)
        erases = spec.cutout_pixels or spec.random_erase
        return input_format.prepare(images, size, partial(augmentation.erase, spec=spec, rng=rng) if erases else None)

    def _mixup(self, batches: Sequence[Batch], epoch: int, chunk: int) -> list[Batch]:
        numbers = np.random.default_rng(derive_seed(self.seed, Stream.MIXUP, epoch, chunk))
        mixed = []
        for batch in batches:
            lam = float(numbers.beta(self.spec.mixup_alpha, self.spec.mixup_alpha))
            partners = torch.from_numpy(numbers.permutation(len(batch))).to(batch.labels.device)
            images = augmentation.mixup(batch.images, lam, partners)
            mixed.append(Batch(images, batch.labels, batch.labels[partners], lam))
        return mixed


def balanced_order(labels: Tensor, rng: torch.Generator) -> Tensor:
    """As many positions as there are labels, with equally many of each class (up to one more), in random order.

    Of a class with fewer images than its share, each image is repeated equally often (up to once more); of a class with
    more, a random part is used.
    """
    classes = torch.unique(labels)
    share, rest = divmod(len(labels), len(classes))
    once_more = set(torch.randperm(len(classes), generator=rng)[:rest].tolist())
    chosen = []
    for place, label in enumerate(classes):
        own = (labels == label).nonzero().flatten()
        rounds, part = divmod(share + (place in once_more), len(own))
        chosen += [own] * rounds + [own[torch.randperm(len(own), generator=rng)[:part]]]
    drawn = torch.cat(chosen)
    return drawn[torch.randperm(len(drawn), generator=rng)]


def plain_batches(split: Split, input_format: InputFormat, batch_size: int, size: int | None = None) -> Iterator[Batch]:
    """The images of a split in order and not augmented, for evaluation; at the network's input size by default."""
    for positions in torch.split(torch.arange(len(split), device=split.indices.device), batch_size):
        images, labels = split.take(positions, input_format.device)
        yield Batch(input_format.prepare(images, size), labels)


def first_images(split: Split, input_format: InputFormat, count: int, size: int | None = None) -> Tensor:
    """The first images of a split, prepared as by `plain_batches`."""
    return next(plain_batches(split, input_format, count, size)).images


def _ahead(prepare: Callable[[int], list[Batch]], chunks: Sequence[int]) -> Iterator[list[Batch]]:
    """prepare() of each chunk, the next one in a thread while the current one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        ready = pool.submit(prepare, chunks[0])
        for following in chunks[1:]:
            current, ready = ready.result(), pool.submit(prepare, following)
            yield current
        yield ready.result()
