"""The evidence for causes, and the figures that several rules derive from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from models.findings import FindingCode
from models.spec.experiment import ExperimentSpec
from models.spec.training import AdamSpec, AdamWSpec, RmspropSpec
from models.verdict.beginning import Beginning, LayerStart
from models.verdict.best import level
from models.verdict.case import Case
from models.verdict.chance import at_chance_from
from models.verdict.curves import Curve, Curves
from models.verdict.filters import FilterHealth


@dataclass(frozen=True)
class Evidence:
    """A run that has ended: what was asked for, how it began, how it went, and how its layers are now."""

    case: Case
    beginning: Beginning
    filters: FilterHealth
    symptoms: frozenset[FindingCode]
    """The codes of what was found of the run otherwise."""

    @property
    def curves(self) -> Curves:
        """The run's curves."""
        return self.case.curves

    @property
    def spec(self) -> ExperimentSpec:
        """What was asked for."""
        return self.case.spec

    @property
    def movement(self) -> Mapping[str, float]:
        """How far each layer's weights moved, as a part of their norm at the start."""
        return self.filters.movement or {}

    @property
    def at_chance(self) -> bool:
        """Whether accuracy ended where guessing is."""
        return at_chance_from(self.curves) is not None

    @property
    def broke(self) -> bool:
        """Whether a loss became infinite or far too large."""
        return bool(self.symptoms & {FindingCode.DIVERGENCE, FindingCode.LOSS_EXPLODED})

    @property
    def lr(self) -> float:
        """The highest learning rate that was used."""
        return max(map(float, self.curves.lr.values), default=self.spec.optimizer.lr)

    @property
    def momentum(self) -> float:
        """The part of the last step's direction that the next one keeps (Adam's first beta)."""
        optimizer = self.spec.optimizer
        return optimizer.betas[0] if isinstance(optimizer, AdamSpec | AdamWSpec) else optimizer.momentum

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer."""
        return math.ceil(self.beginning.num_train_images / (self.spec.batch_size * self.spec.accumulate_batches))

    def gain(self, accuracy: Curve) -> float | None:
        """Where an accuracy ends, from 0 (guessing) to 1 (all right); None where it was not measured."""
        chance = self.curves.chance
        return (level(accuracy) - chance) / (1 - chance) if len(accuracy) else None

    @property
    def largest_step(self) -> float:
        """How far the first steps move the layer that they move most, as a part of its norm."""
        return max(self.first_steps().values(), default=0.0)

    def first_steps(self) -> dict[str, float]:
        """How far the first steps move each layer, as a part of its norm, once momentum has built up."""
        layers = self.beginning.layers
        total = math.sqrt(sum(layer.gradient_norm**2 for layer in layers.values()))
        clip = self.spec.clip_grad_norm
        factor = min(1.0, clip / total) if clip and total > 0 else 1.0
        return {name: _relative_step(self.spec, layer, self.lr, factor) for name, layer in layers.items()}


def _relative_step(spec: ExperimentSpec, layer: LayerStart, lr: float, factor: float) -> float:
    if layer.weight_norm == 0 or layer.gradient_norm == 0:
        return 0.0
    optimizer = spec.optimizer
    summed = 1 / (1 - getattr(optimizer, "momentum", 0.0))
    if isinstance(optimizer, AdamSpec | AdamWSpec | RmspropSpec):  # each weight moves by about the rate
        return lr * summed * math.sqrt(layer.num_weights) / layer.weight_norm
    return lr * summed * factor * layer.gradient_norm / layer.weight_norm
