"""Measures the health of every convolution's filters, and how far each layer's weights moved.

A filter (output channel) is
    dead       its weights are near zero beside its layer's, or it never fired on the images shown;
    saturated  (first layer) it fires everywhere on every image, so that it distinguishes nothing, or its weights are
               many times as large as its layer's;
    duplicate  another one has nearly the same direction (cosine similarity);
    noise      (kernels of 3x3 and more) its weights correlate neither in space nor between channels, like random
               ones.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.verdict.filters import ConvolutionHealth, FilterHealth
from worker.training.diagnosis.activity import Activity, watch_activity

DEAD_NORM = 0.01
"""A filter whose norm is below this fraction of the layer's median is dead."""
SATURATED_NORM = 10.0
"""A filter whose norm is above this many times the layer's median is saturated."""
ALWAYS = 0.995
"""The fraction of all positions at which a saturated filter fires, at least."""
ALIKE = 0.95
"""Cosine similarity of duplicates. Random filters of 9 weights come this close once in some 100,000 pairs."""
FEWEST_WEIGHTS = 9
"""Filters with fewer weights are alike by chance too often to be called duplicates."""
SIGMAS = 2.24
"""A filter has structure when its roughness lies this many standard deviations from that of random weights (97.5%)."""
JUDGED_CHANNELS = 64
JUDGED_VALUES = 2**19
"""Weights whose structure is measured at once: it takes some ten times their memory."""
COMPARED_CHANNELS = 16
"""Input channels used for shape and for coherence; more cost time and change little."""
MOST_PAIRS = 50
"""Duplicate pairs that are listed; the number of filters concerned is exact."""


def filter_health(
    network: nn.Module, initial_state: Mapping[str, Tensor] | None = None, *, images: Tensor | None = None
) -> FilterHealth:
    """Measure every convolution's filters, and how far each layer moved from `initial_state`.

    `initial_state` are the weights that training started from (for fine-tuning: the pretrained ones). `images` are a
    few hundred normalised ones (N, C, H, W) of the network's input size, by which never and always firing filters are
    found; without them, dead and saturated are judged by weights alone. The network is not changed.
    """
    activity = watch_activity(network, images) if images is not None else {}
    first = True
    convolutions: dict[str, ConvolutionHealth] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            convolutions[name] = _examine(module, activity.get(name), first=first)
            first = False
    return FilterHealth(
        convolutions=convolutions,
        movement=layer_movement(network, initial_state),
        num_images=0 if images is None else len(images),
    )


def _examine(convolution: nn.Conv2d, activity: Activity | None, *, first: bool) -> ConvolutionHealth:
    weight = convolution.weight.detach().float().cpu().numpy()
    flat = weight.reshape(len(weight), -1)
    norms = np.linalg.norm(flat, axis=1)
    typical = float(np.median(norms))
    dead = norms <= DEAD_NORM * typical
    saturated = (norms >= SATURATED_NORM * typical) & (typical > 0) if first else np.zeros(len(norms), dtype=bool)
    if activity is not None:
        dead |= activity.fires_at_most == 0
        if first:
            saturated |= activity.fires >= ALWAYS
    pairs = duplicate_pairs(flat, norms > DEAD_NORM * typical)
    noise = noise_like(weight) & ~dead if min(weight.shape[2:]) >= 3 else None
    return ConvolutionHealth(
        num_filters=len(weight),
        fixed=not convolution.weight.requires_grad,
        dead=[int(i) for i in np.flatnonzero(dead)],
        saturated=[int(i) for i in np.flatnonzero(saturated & ~dead)] if first else None,
        duplicates=[(int(a), int(b), round(float(c), 4)) for a, b, c in pairs[:MOST_PAIRS]],
        num_duplicates=len({int(b) for _, b, _ in pairs}),
        noise_like=None if noise is None else [int(i) for i in np.flatnonzero(noise)],
    )


def duplicate_pairs(filters: NDArray[np.floating[Any]], usable: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """Pairs (a, b, cosine) with a < b of filters with nearly the same direction, the most similar first."""
    if filters.shape[1] < FEWEST_WEIGHTS:
        return []
    unit = np.where(usable[:, None], filters / np.maximum(np.linalg.norm(filters, axis=1, keepdims=True), 1e-30), 0.0)
    cosine = np.triu(unit @ unit.T, k=1)
    first, second = np.nonzero(cosine >= ALIKE)
    order = np.argsort(-cosine[first, second], kind="stable")
    return [(int(first[i]), int(second[i]), float(cosine[first[i], second[i]])) for i in order]


def noise_like(weight: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which filters (out, in, h, w) have no structure: neither in space nor from channel to channel.

    Roughness: the mean squared difference of neighbouring weights over twice their variance within a channel (Geary's
    C). It is 1 for weights without spatial correlation, less for edges and blobs, more for fine stripes. Its
    spread for random weights is simulated for one channel, and smaller by the root of the channels that count.
    Coherence: the mean squared correlation of the channels' patterns. A filter that sees an edge in any colour has it.
    Both are asked for at 97.5%, so that one random filter in twenty passes for structured.
    """
    some = max(1, JUDGED_VALUES // max(1, weight[0, :JUDGED_CHANNELS].size))
    parts = [weight[at : at + some, :JUDGED_CHANNELS] for at in range(0, len(weight), some)]
    return np.concatenate([_without_structure(part.astype(np.float64)) for part in parts])


def _without_structure(weight: NDArray[np.float64]) -> NDArray[np.bool_]:
    _, channels, height, width = weight.shape
    centred = weight - weight.mean(axis=(2, 3), keepdims=True)
    energy = (centred**2).sum(axis=(2, 3))
    count = np.maximum(energy.sum(axis=1) ** 2 / np.maximum((energy**2).sum(axis=1), 1e-300), 1.0)
    shapeless = np.abs(_roughness(centred) - 1) < SIGMAS * _roughness_spread(height, width) / np.sqrt(count)
    if channels > 1:
        few = min(channels, COMPARED_CHANNELS)
        shapeless &= _coherence(centred[:, :few]) < _largest_coherence(few, height, width)
    return np.asarray(shapeless)


@lru_cache
def _roughness_spread(height: int, width: int) -> float:
    return float(_of_random_filters(_roughness, 4000, 1, height, width).std())


@lru_cache
def _largest_coherence(channels: int, height: int, width: int) -> float:
    return float(np.quantile(_of_random_filters(_coherence, 1000, channels, height, width), 0.975))


def _of_random_filters(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int, channels: int, height: int, width: int
) -> NDArray[np.float64]:
    """A statistic of each of so many filters with random weights, a part of them at a time."""
    random = np.random.default_rng(0)
    some = max(1, JUDGED_VALUES // (channels * height * width))
    found = []
    for at in range(0, count, some):
        filters = random.standard_normal((min(some, count - at), channels, height, width))
        found.append(statistic(filters - filters.mean(axis=(2, 3), keepdims=True)))
    return np.concatenate(found)


def _coherence(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    out, channels = centred.shape[:2]
    rows = centred.reshape(out, channels, -1)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), 1e-300)
    gram = unit @ unit.transpose(0, 2, 1)
    return np.asarray(((gram**2).sum(axis=(1, 2)) - channels) / (channels * (channels - 1)))


def _roughness(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    down, right = np.diff(centred, axis=2), np.diff(centred, axis=3)
    steps = (down.size + right.size) // len(centred)
    differences = (down**2).sum(axis=(1, 2, 3)) + (right**2).sum(axis=(1, 2, 3))
    variance = (centred**2).sum(axis=(1, 2, 3)) / (centred.shape[1] * (centred.shape[2] * centred.shape[3] - 1))
    return np.asarray(differences / steps / np.maximum(2 * variance, 1e-300))


def layer_movement(network: nn.Module, initial_state: Mapping[str, Tensor] | None) -> dict[str, float] | None:
    """The relative distance of each layer's weights from their start: |w - w0| / |w0|.

    Convolutions and linear layers only. None without a start; a layer whose start is missing or has another shape (a
    new head) is left out.
    """
    if initial_state is None:
        return None
    movement: dict[str, float] = {}
    for name, module in network.named_modules():
        start = initial_state.get(f"{name}.weight")
        if not isinstance(module, nn.Conv2d | nn.Linear) or start is None or start.shape != module.weight.shape:
            continue
        before = start.detach().double().cpu()
        moved = torch.linalg.vector_norm(module.weight.detach().double().cpu() - before)
        movement[name] = float(moved / torch.linalg.vector_norm(before).clamp_min(1e-30))
    return movement
