"""The `optimizer`, `lr_scheduler`, `fine_tuning` and `early_stopping` parts of a spec."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from models.spec.base import Spec, broken_rule

LearningRate = Annotated[float, Field(ge=1e-12, le=100)]
WeightDecay = Annotated[float, Field(ge=0, le=10)]
Beta = Annotated[float, Field(ge=0, le=0.99999)]
ScheduleChanges = dict[str, float | list[int]]
"""Fields of a schedule, and their new values."""


class SgdSpec(Spec):
    """torch.optim.SGD."""

    name: Literal["sgd"] = "sgd"
    lr: LearningRate = Field(default=0.01, description="Learning rate.")
    momentum: float = Field(default=0.9, ge=0, le=0.9999, description="Momentum factor.")
    weight_decay: WeightDecay = Field(default=0.0, description="L2 penalty.")
    nesterov: bool = Field(default=False, description="Nesterov momentum.")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SgdSpec":
        if self.nesterov and self.momentum == 0:
            message = "needs a momentum above 0; set momentum, or nesterov to false"
            raise broken_rule(message, field="nesterov", nearest=False)
        return self


class AdamSpec(Spec):
    """torch.optim.Adam."""

    name: Literal["adam"] = "adam"
    lr: LearningRate = Field(default=1e-3, description="Learning rate.")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="Decay of the two running averages.")
    eps: float = Field(default=1e-8, ge=1e-16, le=1, description="Added to the denominator.")
    weight_decay: WeightDecay = Field(default=0.0, description="L2 penalty, added to the gradient.")


class AdamWSpec(Spec):
    """torch.optim.AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: LearningRate = Field(default=1e-3, description="Learning rate.")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), description="Decay of the two running averages.")
    eps: float = Field(default=1e-8, ge=1e-16, le=1, description="Added to the denominator.")
    weight_decay: WeightDecay = Field(default=0.01, description="Decoupled weight decay.")


class RmspropSpec(Spec):
    """torch.optim.RMSprop."""

    name: Literal["rmsprop"] = "rmsprop"
    lr: LearningRate = Field(default=1e-3, description="Learning rate.")
    alpha: Beta = Field(default=0.99, description="Decay of the running average of squares.")
    momentum: float = Field(default=0.0, ge=0, le=0.9999, description="Momentum factor.")
    eps: float = Field(default=1e-8, ge=1e-16, le=1, description="Added to the denominator.")
    weight_decay: WeightDecay = Field(default=0.0, description="L2 penalty.")


OptimizerSpec = Annotated[SgdSpec | AdamSpec | AdamWSpec | RmspropSpec, Field(discriminator="name")]


class ScheduleSpec(Spec):
    """A learning-rate schedule."""

    spans_training: ClassVar[bool] = False
    """Whether the rate of an epoch depends on how many epochs are trained: with more, the schedule is stretched."""

    def for_part(self, part: float) -> ScheduleChanges:
        """The fields to change so that a training of this part of the epochs goes through the same rates."""
        return {}


class WarmupSpec(ScheduleSpec):
    """A linear warm-up that a schedule can start with, counted in steps, so that part of an epoch works too."""

    warmup_epochs: float = Field(default=0.0, ge=0, le=1000, description="Epochs of linear warm-up; 0 for none.")
    warmup_start_factor: float = Field(
        default=0.01, ge=0, le=1, description="Fraction of the learning rate that the warm-up starts from."
    )

    def for_part(self, part: float) -> ScheduleChanges:
        return {"warmup_epochs": self.warmup_epochs * part} if self.warmup_epochs else {}


class ConstantSpec(WarmupSpec):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"


class ExponentialSpec(WarmupSpec):
    """Multiplied by gamma after each epoch (torch ExponentialLR)."""

    name: Literal["exponential"] = "exponential"
    gamma: float = Field(default=0.95, ge=1e-6, le=1, description="Factor an epoch.")

    def for_part(self, part: float) -> ScheduleChanges:
        return {"gamma": max(1e-6, self.gamma ** (1 / part)), **super().for_part(part)}


class StepSpec(WarmupSpec):
    """Multiplied by gamma every `step_size` epochs (torch StepLR)."""

    name: Literal["step"] = "step"
    step_size: int = Field(default=10, ge=1, le=10_000, description="Epochs between reductions.")
    gamma: float = Field(default=0.1, ge=1e-6, le=1, description="Factor at each reduction.")

    def for_part(self, part: float) -> ScheduleChanges:
        return {"step_size": max(1, round(self.step_size * part)), **super().for_part(part)}


class MultiStepSpec(WarmupSpec):
    """Multiplied by gamma after each of the `milestones` (torch MultiStepLR)."""

    name: Literal["multistep"] = "multistep"
    milestones: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(
        min_length=1, max_length=100, description="Epochs after which the rate is reduced, ascending."
    )
    gamma: float = Field(default=0.1, ge=1e-6, le=1, description="Factor at each milestone.")

    def for_part(self, part: float) -> ScheduleChanges:
        milestones = sorted({max(1, round(epoch * part)) for epoch in self.milestones})
        return {"milestones": milestones, **super().for_part(part)}

    @model_validator(mode="after")
    def _milestones_ascend(self) -> "MultiStepSpec":
        if list(self.milestones) != sorted(set(self.milestones)):
            message = f"must ascend without repetition, not {list(self.milestones)}"
            raise broken_rule(message, field="milestones", nearest=sorted(set(self.milestones)))
        return self


class CosineSpec(WarmupSpec):
    """Half a cosine from the rate down to `eta_min` (torch CosineAnnealingLR, a step at a time).

    `eta_min` is reached when the last step is done, so that this step, too, trains.
    """

    spans_training: ClassVar[bool] = True

    name: Literal["cosine"] = "cosine"
    eta_min: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Rate at the end, for every part of the network; a rate that is lower already stays where it is.",
    )


class OneCycleSpec(ScheduleSpec):
    """Up to the optimizer's rate and down again over the whole training (torch OneCycleLR; Smith and Topin 2018).

    The rates are torch's, in two phases. The momentum stays what the optimizer says: torch also moves it against the
    rate unless `cycle_momentum=False` is given.
    """

    spans_training: ClassVar[bool] = True

    name: Literal["one_cycle"] = "one_cycle"
    pct_start: float = Field(default=0.3, ge=0.01, le=0.99, description="Part of training spent going up.")
    div_factor: float = Field(default=25.0, ge=1, le=1e6, description="Peak rate over first rate.")
    final_div_factor: float = Field(default=1e4, ge=1, le=1e12, description="First rate over last rate.")
    anneal: Literal["cos", "linear"] = Field(default="cos", description="Shape; linear makes a triangle.")


class PlateauSpec(WarmupSpec):
    """Multiplied by `factor` when the validation loss has not improved (torch ReduceLROnPlateau)."""

    name: Literal["plateau"] = "plateau"
    factor: float = Field(default=0.1, ge=1e-6, le=0.99, description="Factor at each reduction.")
    patience: int = Field(default=3, ge=0, le=1000, description="Epochs without improvement that are waited out.")
    threshold: float = Field(default=1e-4, ge=0, le=1, description="Relative improvement that counts.")
    min_lr: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="A reduction ends here, for every part of the network; a rate that is lower already stays.",
    )


LrSchedulerSpec = Annotated[
    ConstantSpec | ExponentialSpec | StepSpec | MultiStepSpec | CosineSpec | OneCycleSpec | PlateauSpec,
    Field(discriminator="name"),
]


class FineTuningSpec(Spec):
    """Fine-tuning: freezing or slowing a network's body while its new head, the last layer with weights, learns."""

    freeze_backbone_epochs: int = Field(
        default=0, ge=0, le=10_000, description="Epochs at the start in which only the head is trained."
    )
    backbone_lr_factor: float = Field(
        default=1.0, ge=0, le=1, description="Factor on the learning rate of everything but the head; 0 freezes it."
    )
    freeze: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(),
        max_length=100,
        description="Parameters that are never trained, by name, with * and ? as in file names: 'features.*', "
        "'layer1', '*.bias'. A layer's name stands for all in it. GET /experiments/{id}/layers lists names.",
    )


class ResizePhaseSpec(Spec):
    """From this epoch on, train at this input size (progressive resizing; validation stays at the final size)."""

    from_epoch: int = Field(ge=1, le=10_000, description="First epoch, counted from 1.")
    input_size: int = Field(ge=8, le=512, description="Side that training images are resized to.")


class Monitor(StrEnum):
    """A series that early stopping can watch."""

    VAL_LOSS = "val_loss"
    """Mean cross-entropy on the validation split."""
    VAL_ACCURACY = "val_accuracy"
    """Accuracy on the validation split."""
    TRAIN_LOSS = "train_loss"
    """Mean training loss."""
    TRAIN_ACCURACY = "train_accuracy"
    """Accuracy on the training batches."""


class EarlyStoppingSpec(Spec):
    """Stop when a series has not improved for a while (Keras' EarlyStopping)."""

    monitor: Monitor = Field(default=Monitor.VAL_LOSS, description="The series that is watched.")
    mode: Literal["min", "max"] | None = Field(
        default=None, description="Whether smaller or larger is better; null takes it from the series."
    )
    patience: int = Field(default=5, ge=1, le=10_000, description="Epochs without improvement that are waited out.")
    min_delta: float = Field(default=0.0, ge=0, le=1000, description="Change that counts as an improvement.")

    @model_validator(mode="after")
    def _mode_fits_monitor(self) -> "EarlyStoppingSpec":
        natural = "min" if self.monitor.value.endswith("loss") else "max"
        if self.mode is None:
            object.__setattr__(self, "mode", natural)
        elif self.mode != natural:
            message = f"is '{self.mode}', which does not fit the monitor {self.monitor}; use '{natural}'"
            raise broken_rule(message, field="mode", nearest=natural)
        return self
