"""An experiment's spec: immutable, complete, and accepted by POST again."""

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from models.plain import JsonObject
from models.spec.base import Spec, broken_rule
from models.spec.data import AugmentationSpec, DatasetSpec
from models.spec.model import ModelSpec
from models.spec.training import (
    ConstantSpec,
    EarlyStoppingSpec,
    FineTuningSpec,
    LrSchedulerSpec,
    OptimizerSpec,
    ResizePhaseSpec,
    SgdSpec,
)

PRETRAINED_CLIP = 1.0
"""The first gradients through a new head are large: at the default rate they end most of SqueezeNet's ReLUs at once."""

LATER: tuple[tuple[str, str, object], ...] = (
    ("dataset", "fingerprint", None),
    ("dataset", "split", None),
    ("fine_tuning", "freeze", []),
    ("model", "keep_head", False),
    ("", "sampler", "shuffle"),
)
"""Fields that specs of version 0.1 did not have, with their part and default."""

Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]


class Precision(StrEnum):
    """The number format of the forward and backward pass."""

    AUTO = "auto"
    """fp32 on a CPU; bf16 on a GPU that has it, else fp16."""
    FP32 = "fp32"
    """32-bit floats."""
    BF16 = "bf16"
    """bfloat16 autocast."""
    FP16 = "fp16"
    """float16 autocast with loss scaling; CUDA only."""


class OnDivergence(StrEnum):
    """What is done when a loss, gradient or weight stops being finite."""

    STOP = "stop"
    """End the run; the last finite weights stay usable."""
    LOWER_LR = "lower_lr"
    """Go back to the last finite checkpoint with a tenth of the rate, at most three times."""


class ExperimentSpec(Spec):
    """What to train, on what, and how. Every field has a default but `model`."""

    spec_version: Literal[1, 2] = Field(
        default=2,
        description="Version of what a spec means, 2 if left out; a stored spec keeps its own. Version 1 makes images "
        "smaller without antialiasing, takes the images of train_limit and val_limit without regard to their classes, "
        "and has a cosine reach its bottom in the last step. All else is the same.",
    )
    name: str = Field(default="", max_length=200, description="A name for display; any text.")
    tags: tuple[Tag, ...] = Field(default=(), max_length=20, description="For finding experiments again.")
    dataset: DatasetSpec = Field(default=DatasetSpec(), description="Which images, and how they are split.")
    model: ModelSpec = Field(description="Which network: a preset's name, or an object with a `name`.")
    augmentation: AugmentationSpec = Field(
        default=AugmentationSpec(), description="Augmentation of the training images."
    )
    optimizer: OptimizerSpec = Field(default=SgdSpec(), description="What updates the weights.")
    lr_scheduler: LrSchedulerSpec = Field(default=ConstantSpec(), description="The learning-rate schedule.")
    fine_tuning: FineTuningSpec = Field(
        default=FineTuningSpec(), description="Freezing and learning rate of a pretrained body."
    )
    epochs: int = Field(default=10, ge=1, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(default=32, ge=1, le=65_536, description="Images in one batch.")
    accumulate_batches: int = Field(
        default=1, ge=1, le=1024, description="Batches whose gradients are averaged into one step."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of weights, order, augmentation and dropout.")
    precision: Precision = Field(default=Precision.AUTO, description="Number format of the computation.")
    label_smoothing: float = Field(default=0.0, ge=0, le=0.99, description="Smoothing of the training targets.")
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(ge=0, le=1e6)], ...] | None = Field(
        default=None, description="Weights of the classes in the training loss; 'balanced' takes inverse frequencies."
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        default="shuffle",
        description="'shuffle' shows every training image once an epoch; 'balanced' shows each class equally often, in "
        "as many images: some of a large class are left to later epochs, those of a small one repeated.",
    )
    clip_grad_norm: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="Largest norm of the gradient; larger ones are scaled down. Left out, it is 1 for a pretrained "
        "network and none for others.",
    )
    ema_decay: float | None = Field(
        default=None,
        ge=0,
        le=0.999999,
        description="Decay a step of averaged weights, which are then what is measured.",
    )
    test_time_augmentation: Literal["none", "mirror"] = Field(
        default="none", description="'mirror' averages the outputs for an image and its mirror image."
    )
    progressive_resizing: tuple[ResizePhaseSpec, ...] = Field(
        default=(), max_length=20, description="Smaller training images at first; empty for none."
    )
    early_stopping: EarlyStoppingSpec | None = Field(default=None, description="Stop when nothing improves.")
    on_divergence: OnDivergence = Field(default=OnDivergence.STOP, description="What to do about NaN.")

    @model_validator(mode="after")
    def _parts_fit(self) -> "ExperimentSpec":
        phases = [phase.from_epoch for phase in self.progressive_resizing]
        if phases != sorted(set(phases)):
            message = f"from_epoch must ascend without repetition, not {phases}"
            raise broken_rule(message, field="progressive_resizing")
        if "clip_grad_norm" not in self.model_fields_set and self.model.starts_pretrained:
            object.__setattr__(self, "clip_grad_norm", PRETRAINED_CLIP)
        warmup = getattr(self.lr_scheduler, "warmup_epochs", 0)
        if warmup > self.epochs:
            message = f"is {warmup:g}, more than epochs, which is {self.epochs}"
            raise broken_rule(message, field="lr_scheduler.warmup_epochs", nearest=self.epochs)
        if self.augmentation.mixup_alpha and self.class_weights is not None:
            message = "cannot be used together with class_weights; leave one of them out"
            raise broken_rule(message, field="augmentation.mixup_alpha", nearest=0)
        return self

    @property
    def is_version_1(self) -> bool:
        """Whether this spec was written for version 1 and must come out as it did then."""
        return self.spec_version == 1

    def as_json(self) -> JsonObject:
        """The spec as plain JSON data, complete with defaults."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """SHA-256 of what decides the result: the spec without its name and tags, keys sorted."""
        return self._digest_without("name", "tags")

    def course_digest(self) -> str:
        """SHA-256 of what decides each epoch's result: as digest(), without the number of epochs too.

        A run can be continued from a checkpoint of another number of epochs.
        """
        return self._digest_without("name", "tags", "epochs")

    def _digest_without(self, *names: str) -> str:
        """A field that came later than stored specs counts where it is set: their digests stay what they were."""
        body = {name: value for name, value in self.as_json().items() if name not in names}
        for part, field, default in LATER:
            of = body[part] if part else body
            if of.get(field) == default:
                of.pop(field, None)
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
