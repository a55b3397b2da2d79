"""A finding: one statement about an experiment, with how serious it is, its evidence and what to try.

The verdict makes findings about the history of a run (models.verdict), models.networks about a spec before it is
trained. docs/verdicts.md explains every code to users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

from models.plain import JsonObject, finite


class Severity(StrEnum):
    """How serious a finding is."""

    GOOD = "good"
    """As it should be."""
    INFO = "info"
    """Worth knowing."""
    WARNING = "warning"
    """Costs accuracy or time."""
    PROBLEM = "problem"
    """The result is of no use."""


MOST_SERIOUS_FIRST = (Severity.PROBLEM, Severity.WARNING, Severity.INFO, Severity.GOOD)


class FindingCode(StrEnum):
    """Codes of findings about a run's history."""

    BEST_EPOCH = "best-epoch"
    """Which epochs have the lowest validation loss and the highest accuracy, and which others are as good."""
    OVERFITTING = "overfitting"
    """The validation loss rises after its lowest value, and the training loss does not rise with it."""
    TRAINING_LOSS_RISING = "training-loss-rising"
    """The training loss itself rises."""
    WASTED_EPOCHS = "wasted-epochs"
    """Epochs after the last one that improved anything."""
    STILL_IMPROVING = "still-improving"
    """The last third of the run still improved the network."""
    SLOW_LEARNING = "slow-learning"
    """It improves so slowly that several times as many epochs would not be enough."""
    COLLAPSE = "collapse"
    """Accuracy lost a third or more of its gain over chance, for good or for some epochs."""
    PASSING_COLLAPSE = "passing-collapse"
    """A collapse that was recovered from, in a run with another one that was not."""
    LOSS_EXPLODED = "loss-exploded"
    """The loss stayed finite and ended far above the loss at chance."""
    STUCK_AT_CHANCE = "stuck-at-chance"
    """Accuracy and loss are those of guessing."""
    BELOW_CHANCE = "below-chance"
    """Accuracy is far below that of guessing."""
    WORSE_THAN_GUESSING = "worse-than-guessing"
    """The lowest validation loss is above that of guessing."""
    GENERALISATION_GAP = "generalisation-gap"
    """Training images are classified better than validation images."""
    OSCILLATION = "oscillation"
    """The validation curves go up and down from epoch to epoch."""
    DIVERGENCE = "divergence"
    """A loss, gradient or weight stopped being finite."""
    LR_LOWERED = "lr-lowered"
    """Training went on at a lower learning rate after a divergence."""
    DEAD_KERNELS = "dead-kernels"
    """Filters that never respond, or whose weights are close to zero."""
    SATURATED_KERNELS = "saturated-kernels"
    """Filters of the first layer that respond everywhere on every image."""
    DUPLICATE_KERNELS = "duplicate-kernels"
    """Filters that point in the same direction as another one."""
    NOISE_KERNELS = "noise-kernels"
    """Filters without structure, as at random initialisation."""
    LAYER_MOVEMENT = "layer-movement"
    """How much each layer's weights changed from their initial values."""
    FIRST_LAYER_SETTLED = "first-layer-settled"
    """The epoch from which the first layer's kernels stay close to their final values."""
    FIRST_LAYER_MOVING = "first-layer-moving"
    """The first layer's kernels were still changing near the end."""
    CALIBRATION = "calibration"
    """Whether the best weights' probabilities are as high as they are right."""
    NOT_SHUFFLED = "not-shuffled"
    """A cause: batches hold far fewer classes than batches drawn at random would."""
    WRONG_HEAD = "wrong-head"
    """A cause: the network has more outputs than there are classes."""
    INPUTS_NOT_NORMALISED = "inputs-not-normalised"
    """A cause: the mean or the deviation of the network's inputs is far from 0 and 1."""
    CONTAMINATED_VALIDATION = "contaminated-validation"
    """A cause: validation images are also training images."""
    LABEL_NOISE = "label-noise"
    """A cause: many images that the network is sure of have labels that it finds least likely."""
    FROZEN_BODY = "frozen-body"
    """A cause: layers with random weights were not trained, though others were."""
    TOO_FEW_IMAGES = "too-few-images"
    """A cause: so few training images that the network memorised them."""
    DESTRUCTIVE_AUGMENTATION = "destructive-augmentation"
    """A cause: augmented images are much harder to classify than the images themselves."""
    DEAD_LAYER = "dead-layer"
    """A cause: before training a whole layer of ReLUs was zero for every image."""
    VANISHING_GRADIENTS = "vanishing-gradients"
    """A cause: before training hardly any gradient reached the first layers."""
    MOMENTUM_TOO_HIGH = "momentum-too-high"
    """A cause: each step sums the gradients of very many batches."""
    LR_TOO_HIGH = "lr-too-high"
    """A cause: steps so large that they destroyed weights."""
    LR_TOO_LOW = "lr-too-low"
    """A cause: steps so small that the weights hardly moved."""
    EARLY_STOPPED = "early-stopped"
    """Early stopping ended the run."""
    MISSING_VALUES = "missing-values"
    """Some epochs have no figure, or one that is not finite."""
    TOO_FEW_EPOCHS = "too-few-epochs"
    """There are too few epochs to tell a trend from noise."""
    NO_PROBLEM = "no-problem"
    """Nothing more serious than a remark was found."""


CAUSES = {
    FindingCode.NOT_SHUFFLED: "the training images are not shuffled",
    FindingCode.WRONG_HEAD: "its head has more outputs than there are classes",
    FindingCode.INPUTS_NOT_NORMALISED: "its inputs are not normalised",
    FindingCode.CONTAMINATED_VALIDATION: "validation images are training images too",
    FindingCode.LABEL_NOISE: "many labels seem to be wrong",
    FindingCode.FROZEN_BODY: "layers with random weights were not trained",
    FindingCode.TOO_FEW_IMAGES: "there are too few training images",
    FindingCode.DEAD_LAYER: "a layer was dead before training",
    FindingCode.VANISHING_GRADIENTS: "gradients vanish on their way to the first layers",
    FindingCode.MOMENTUM_TOO_HIGH: "the momentum is too high",
    FindingCode.LR_TOO_HIGH: "the learning rate is too high",
    FindingCode.LR_TOO_LOW: "the learning rate is too low",
    FindingCode.DESTRUCTIVE_AUGMENTATION: "augmented images are much harder than real ones",
}
"""The codes of causes, each with its words in a summary. The first one found follows the most serious symptom."""


class WarningCode(StrEnum):
    """Codes of findings about a spec before it is trained (models.networks.findings and no_effect)."""

    SMALL_INPUT = "small-input"
    """Images are smaller than the network can make use of."""
    HIGH_LEARNING_RATE = "high-learning-rate"
    """The learning rate is far above what is usual for the network and optimizer."""
    LOW_LEARNING_RATE = "low-learning-rate"
    """The learning rate is so low that little will be learned."""
    OUTPUT_LAYER_WRITTEN_DOWN = "output-layer-written-down"
    """The last hidden layer looks like an output layer, which is added by itself."""
    NARROW_HEAD = "narrow-head"
    """A hidden layer has fewer units than there are classes."""
    SMALL_VALIDATION_SPLIT = "small-validation-split"
    """There are so few validation images that accuracies are imprecise."""
    BATCH_LARGER_THAN_SPLIT = "batch-larger-than-split"
    """All training images fit into one batch: an epoch is one step."""
    STRONG_AUGMENTATION = "strong-augmentation"
    """Augmentation removes most of many images."""
    UPSIDE_DOWN = "upside-down"
    """Images that have an up and a down are turned over."""
    MIRRORED = "mirrored"
    """Images whose mirror image is of another class, or of none, are mirrored."""
    FROZEN_WITHOUT_PRETRAINING = "frozen-without-pretraining"
    """Layers with random weights are frozen for all of training."""
    NEVER_UNFROZEN = "never-unfrozen"
    """The pretrained layers are frozen for all of training."""
    LIMIT_WITHOUT_EFFECT = "limit-without-effect"
    """A limit on a split's images is above their number."""
    COLOUR_OF_GRAY_IMAGES = "colour-of-gray-images"
    """Saturation or hue of gray images is changed."""
    MIXUP_WITHOUT_EFFECT = "mixup-without-effect"
    """Mixup has no second image in a batch of one."""
    SCHEDULE_WITHOUT_EFFECT = "schedule-without-effect"
    """The schedule never changes the learning rate."""
    MILESTONE_WITHOUT_EFFECT = "milestone-without-effect"
    """Training ends before a milestone of the schedule."""
    WARMUP_WITHOUT_EFFECT = "warmup-without-effect"
    """The warm-up has no steps, or starts at the full learning rate."""
    WARMUP_THROUGHOUT = "warmup-throughout"
    """The warm-up takes all epochs."""
    PHASE_WITHOUT_EFFECT = "phase-without-effect"
    """A phase of progressive resizing begins after the last epoch."""
    RESIZING_WITHOUT_EFFECT = "resizing-without-effect"
    """Progressive resizing always has the network's input size."""
    MIN_DELTA_OUT_OF_REACH = "min-delta-out-of-reach"
    """Early stopping asks for a larger improvement than is possible."""
    PATIENCE_WITHOUT_EFFECT = "patience-without-effect"
    """Early stopping waits longer than training takes."""
    FREEZING_WITHOUT_EFFECT = "freezing-without-effect"
    """Layers that a learning rate of 0 freezes anyway are frozen for some epochs."""
    ACCUMULATION_WITHOUT_EFFECT = "accumulation-without-effect"
    """More batches are accumulated than an epoch has."""
    AVERAGING_WITHOUT_EFFECT = "averaging-without-effect"
    """Averaged weights are those of the last step."""
    SLOW_AVERAGING = "slow-averaging"
    """Averaged weights look back over most of training."""
    CLASS_WEIGHTS_WITHOUT_EFFECT = "class-weights-without-effect"
    """All class weights are the same."""
    UNEVEN_CLASSES = "uneven-classes"
    """Classes have very different numbers of images, and nothing makes up for it."""
    BALANCED_TWICE = "balanced-twice"
    """Sampler and class weights both make up for the classes' sizes."""
    SCHEDULE_STRETCHED = "schedule-stretched"
    """A continued experiment's schedule spans more epochs: its rate rises where the first part ended."""
    CLASSES_OF_WEIGHT_0 = "classes-of-weight-0"
    """Nothing is learned from the images of some classes."""
    DATASET_LEAKAGE = "dataset-leakage"
    """Images of an uploaded dataset's test split are copies of training images."""


class Evidence(TypedDict):
    """The evidence of a finding: epochs (counted from 1; the first is where it begins) and figures by name."""

    epochs: list[int]
    values: JsonObject


class FindingJson(TypedDict):
    """A finding as it is stored and sent."""

    code: str
    severity: str
    sentence: str
    evidence: Evidence
    suggestion: str
    changes: NotRequired[JsonObject]


class BestJson(TypedDict):
    """The best epoch of one curve as it is stored and sent."""

    epoch: int
    value: float
    as_good: list[int]
    stands_out: bool
    confidence: float


class BestEpochs(TypedDict):
    """The best epochs by either validation curve; null where it was not measured."""

    by_loss: BestJson | None
    by_accuracy: BestJson | None


class VerdictJson(TypedDict):
    """A verdict as it is stored and sent."""

    summary: str
    best_epoch: BestEpochs
    stability: float | None
    finished: bool
    findings: list[FindingJson]


@dataclass(frozen=True)
class Finding:
    """One statement, its evidence, and what to try."""

    code: FindingCode
    severity: Severity
    sentence: str
    epochs: Sequence[int] = ()
    """Counted from 1; the first one is where it begins."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Figures by name."""
    suggestion: str = ""

    def as_json(self) -> FindingJson:
        """The finding as it is stored and sent; figures that are not finite become null."""
        return {
            "code": self.code.value,
            "severity": self.severity.value,
            "sentence": self.sentence,
            "evidence": {"epochs": [int(epoch) for epoch in self.epochs], "values": finite(dict(self.values))},
            "suggestion": self.suggestion,
        }
