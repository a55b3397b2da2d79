"""Options and results of measurements that a client waits for: JSON objects shared by worker, store and service."""

from typing import NotRequired, TypedDict, final


class LearningRateRange(TypedDict):
    """The rates that a learning-rate test tries."""

    lr_min: float
    lr_max: float
    steps: int
    """How many rates, in equal ratios."""


DEFAULT_RANGE: LearningRateRange = {"lr_min": 1e-6, "lr_max": 1.0, "steps": 100}


class SweepPoint(TypedDict):
    """One rate of a learning-rate test. A loss that was not finite is None."""

    lr: float
    loss: float | None
    """The mean of its steps."""
    smoothed: float | None
    """The same averaged over neighbouring rates."""


class LrSuggestion(TypedDict):
    """The rate that is suggested, and how it was found; no rate where none can be suggested."""

    lr: float | None
    why: str


class SweepResult(TypedDict):
    """The loss at every rate, and what follows from it."""

    points: list[SweepPoint]
    suggestion: LrSuggestion
    diverged_at: float | None
    """The rate at which the loss blew up; None where it did not."""


class LearningRateTestResult(SweepResult):
    """A learning-rate test as it is stored and sent."""

    num_steps: int
    """Steps that were trained."""
    images_a_step: int
    seconds: float
    beside_a_run: NotRequired[bool]
    """Whether a run trained on the same worker meanwhile."""


class FirstNonFinite(TypedDict):
    """Where the few steps of a pre-flight stopped being finite, and what did: loss, gradient or weight."""

    step: int
    what: str


class PreflightResult(TypedDict):
    """A few steps of a spec, measured."""

    device: str
    threads: int
    finite: bool
    diverged: FirstNonFinite | None
    steps_measured: int
    mean_loss: float
    seconds_per_step: float
    images_per_second: float
    seconds_per_epoch: float
    seconds_in_all: float
    peak_memory_mb: float
    beside_a_run: NotRequired[bool]
    """Whether a run trained on the same worker meanwhile, which makes the figures slower."""


class AugmentedPicture(TypedDict):
    """Training images as a spec's augmentation makes them, in one picture."""

    png: str
    """In base64."""
    num_images: int
    beside_a_run: NotRequired[bool]


class Wanted(TypedDict, total=False):
    """A request about one image: `method` with `target`, a class's number, or `layer`, a layer's name."""

    method: str
    target: int
    layer: str


class Question(Wanted):
    """A request about one image, with the image and the weights."""

    weights: str
    """The weights file, relative to the experiments folder."""
    sha256: str
    pixels: str
    """uint8 (channels, side, side) as they are decoded, in base64."""


class StudyDryRun(TypedDict):
    """A pre-flight that a study has measured for its plan, which has more time than one that a client waits for."""

    study: int
    """The study's id."""


class StoredFile(TypedDict):
    """A file below the experiments folder, with the digest that it must have."""

    path: str
    sha256: str


class CombinedQuestion(TypedDict):
    """A request to average the probabilities or weights of a study's runs."""

    study: int
    """The study's id."""
    combine: str
    """A value of models.spec.study.Combine."""
    files: list[StoredFile]
    """Outputs on the validation split for an ensemble, weights otherwise."""


class CombinedResult(TypedDict):
    """The score of averaged runs on the validation images."""

    accuracy: float
    num_images: int
    right: str
    """Whether each image is right: a bit an image, the first one highest, in base64."""
    batch_norm_images: int
    """Training images from which batch normalisation's statistics were recomputed; 0 for networks without it."""
    beside_a_run: NotRequired[bool]


class RobustnessQuestion(TypedDict):
    """A request to score the weights of a study's run on corrupted validation images."""

    study: int
    weights: StoredFile


class RobustnessResult(TypedDict):
    """Accuracy on validation images as they are, and corrupted at five strengths."""

    num_images: int
    clean: float
    accuracy: dict[str, list[float]]
    """By corruption, of the strengths 1 to 5."""
    parameters: dict[str, list[float]]
    """What each strength is: deviation of the noise, radius of the blur, what is added to the brightness, JPEG's
    quality."""
    parameters_of: str
    """The benchmark that they are of."""
    beside_a_run: NotRequired[bool]


@final
class ExplanationResult(TypedDict):
    """A map (side, side), or feature maps (maps, height, width), of 32-bit floats."""

    shape: list[int]
    values: str
    """In base64."""
    full_shape: NotRequired[list[int]]
    """Of all feature maps, of which the first are sent, and large ones as means of blocks."""
    beside_a_run: NotRequired[bool]


@final
class ExplanationRefused(TypedDict):
    """What is asked for does not exist in this network, and what to do."""

    refused: str
    fix: str | None
    beside_a_run: NotRequired[bool]


MeasurementOptions = LearningRateRange | Question | StudyDryRun | CombinedQuestion | RobustnessQuestion
MeasurementResult = (
    LearningRateTestResult
    | PreflightResult
    | AugmentedPicture
    | ExplanationResult
    | ExplanationRefused
    | CombinedResult
    | RobustnessResult
)
