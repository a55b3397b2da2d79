"""Findings on the filters and the first layer's kernels."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.findings import Finding, FindingCode, Severity
from models.text import percent, plural
from models.verdict.filters import ConvolutionHealth, FilterHealth
from models.verdict.settling import SETTLED, settling_epoch

Layers = Mapping[str, ConvolutionHealth]

BLOWN_UP = 100.0
"""A layer that moved by so many times its size was not trained."""
OVERWRITTEN = 0.5
"""A pretrained layer that moved by this part of its size has lost most of its pretraining."""
MOST_NAMED = 4
"""Layers that a sentence names."""


def report_kernels(
    kernels: Mapping[int, np.ndarray] | None, filters: FilterHealth | None, *, pretrained: bool = False
) -> list[Finding]:
    """Findings on the filters of the network as it is now, and on how the first layer came to be."""
    findings: list[Finding] = []
    layers: Layers = filters.convolutions if filters else {}
    if filters and layers:
        findings += _dead(layers, filters.num_images)
        findings += _saturated(layers)
        findings += _duplicates(layers)
        findings += _noise(layers)
    if filters and filters.movement:
        findings.append(_movement(filters.movement, pretrained=pretrained))
    if kernels is not None and len(kernels) >= 3:
        findings += _settled(kernels)
    return findings


def _dead(layers: Layers, num_images: int) -> list[Finding]:
    dead = {name: layer for name, layer in layers.items() if layer.dead}
    if not dead:
        return []
    shares = {name: len(layer.dead) / layer.num_filters for name, layer in dead.items()}
    worst = max(shares, key=lambda name: shares[name])
    silent = [name for name, share in shares.items() if share == 1]
    total = sum(len(layer.dead) for layer in dead.values())
    everything = sum(layer.num_filters for layer in layers.values())
    they, their = ("it never fires", "its") if total == 1 else ("they never fire", "their")
    shown = "any of the images shown" if num_images > 1 else "the one image shown"
    how = f"{they} on {shown}" if num_images else f"{their} weights are next to zero"
    sentence = (
        f"{total:,} of {plural(everything, 'filter')} {'is' if total == 1 else 'are'} dead: {how}. Worst is {worst}, "
        f"{len(dead[worst].dead)} of {dead[worst].num_filters}."
    )
    if silent:
        sentence = f"Every filter of {silent[0]} is dead, so it passes nothing on. {sentence}"
    first = next(iter(layers))
    serious = shares[worst] >= 0.25 or shares.get(first, 0) >= 0.1
    return [
        Finding(
            FindingCode.DEAD_KERNELS,
            Severity.PROBLEM if silent else Severity.WARNING if serious else Severity.INFO,
            sentence,
            values={
                "layers": {name: layer.dead[:100] for name, layer in dead.items()},
                "shares": {name: round(share, 4) for name, share in shares.items()},
            },
            suggestion="A lower learning rate or a warm-up keeps filters alive; batch normalisation does too.",
        )
    ]


def _saturated(layers: Layers) -> list[Finding]:
    name, layer = next(iter(layers.items()))
    if not layer.saturated or layer.fixed:
        return []
    count = len(layer.saturated)
    is_saturated = (
        "is saturated: it is active everywhere in every image, or its weights are far larger than"
        if count == 1
        else "are saturated: they are active everywhere in every image, or their weights are far larger than"
    )
    return [
        Finding(
            FindingCode.SATURATED_KERNELS,
            Severity.WARNING if count >= 0.25 * layer.num_filters else Severity.INFO,
            f"{count} of the {plural(layer.num_filters, 'kernel')} of the first layer ({name}) {is_saturated} "
            f"the others', so {'its' if count == 1 else 'their'} output hardly depends on the image.",
            values={"layer": name, "kernels": layer.saturated},
            suggestion="Check that images are normalised; lower the learning rate or add weight decay.",
        )
    ]


def _duplicates(layers: Layers) -> list[Finding]:
    first = next(iter(layers))
    alike = {
        name: layer.num_duplicates
        for name, layer in layers.items()
        if layer.num_duplicates and (name == first or layer.num_duplicates >= 0.1 * layer.num_filters)
    }
    if not alike:
        return []
    worst = max(alike, key=lambda name: alike[name] / layers[name].num_filters)
    return [
        Finding(
            FindingCode.DUPLICATE_KERNELS,
            Severity.INFO,
            f"{alike[worst]} of the {plural(layers[worst].num_filters, 'filter')} of {worst} nearly "
            f"{'repeats' if alike[worst] == 1 else 'repeat'} another one "
            f"({plural(len(alike), 'layer')} with such filters): a smaller layer would do as well.",
            values={"layers": alike, "pairs": layers[worst].duplicates[:20]},
            suggestion="Fewer channels there would train faster and lose little.",
        )
    ]


def _noise(layers: Layers) -> list[Finding]:
    shares = {
        name: len(layer.noise_like) / layer.num_filters
        for name, layer in layers.items()
        if layer.noise_like is not None and not layer.fixed
    }
    first = next(iter(layers))
    noisy = [name for name, share in shares.items() if share >= (0.5 if name == first else 0.8)]
    if not noisy:
        return []
    return [
        Finding(
            FindingCode.NOISE_KERNELS,
            Severity.INFO,
            f"{_most_filters(noisy, len(shares))} look like noise: they have no structure, as before training.",
            values={"shares": {name: round(share, 4) for name, share in shares.items()}},
            suggestion="Longer training, weight decay or a larger learning rate usually give kernels a structure.",
        )
    ]


def _most_filters(noisy: Sequence[str], num_layers: int) -> str:
    """The subject of a sentence about layers: most filters of one, or in some of them."""
    if len(noisy) == 1:
        return f"Most filters of {noisy[0]}"
    *others, last = noisy if len(noisy) <= MOST_NAMED else [*noisy[:MOST_NAMED], "others"]
    count = f"{len(noisy)} of the {num_layers}" if len(noisy) < num_layers else f"all {num_layers}"
    count = "both" if len(noisy) == num_layers == 2 else count
    return f"In {count} layers ({', '.join(others)} and {last}) most filters"


def _movement(movement: Mapping[str, float], *, pretrained: bool) -> Finding:
    most, least = max(movement, key=lambda name: movement[name]), min(movement, key=lambda name: movement[name])
    start = "the pretrained weights" if pretrained else "their initial values"
    overwritten = [name for name, moved in movement.items() if moved >= OVERWRITTEN] if pretrained else []
    sentence = (
        f"Relative to {start}, the layers' weights changed by {percent(movement[least])} ({least}) to "
        f"{percent(movement[most])} ({most}) of their norm."
    )
    if movement[most] >= BLOWN_UP:
        sentence = (
            f"Relative to {start}, the layers' weights changed by up to {percent(movement[most])} their norm ({most}): "
            "update steps that were far too large have overwritten them."
        )
    if overwritten:
        sentence += f" In {plural(len(overwritten), 'layer')} little of the pretrained weights is left."
    return Finding(
        FindingCode.LAYER_MOVEMENT,
        Severity.WARNING if overwritten else Severity.INFO,
        sentence,
        values={"movement": {name: round(moved, 5) for name, moved in movement.items()}},
        suggestion=(
            "Lower fine_tuning.backbone_lr_factor or freeze the body for the first epochs." if overwritten else ""
        ),
    )


def _settled(kernels: Mapping[int, np.ndarray]) -> list[Finding]:
    last = max(kernels)
    if not np.isfinite(kernels[last]).all():
        return []
    epoch = settling_epoch(kernels)
    if epoch is None:
        sentence = f"The first layer's kernels were still changing by more than {percent(SETTLED)} near the end."
    else:
        sentence = (
            f"The first layer's kernels had settled by epoch {epoch}: from there on they stay within "
            f"{percent(SETTLED)} of their final values."
        )
    return [
        Finding(
            FindingCode.FIRST_LAYER_SETTLED if epoch is not None else FindingCode.FIRST_LAYER_MOVING,
            Severity.INFO,
            sentence,
            epochs=[epoch] if epoch is not None else [last],
            values={"epoch": epoch, "epochs": last},
        )
    ]
