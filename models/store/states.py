"""The enumerations of stored values."""

from enum import StrEnum


class Status(StrEnum):
    """Status of an experiment."""

    QUEUED = "queued"
    """Accepted; waits for a worker, at first or again after a worker was lost."""
    RUNNING = "running"
    """A worker holds the lease and trains."""
    COMPLETED = "completed"
    """Trained to the end, or stopped early as the spec asked."""
    FAILED = "failed"
    """Ended by an error that `reason` names."""
    CANCELLED = "cancelled"
    """Ended by a request to cancel."""
    DIVERGED = "diverged"
    """Ended because a loss, gradient or weight was no longer finite."""

    @property
    def terminal(self) -> bool:
        """Whether the experiment has ended, unless it is resumed."""
        return self not in UNFINISHED


UNFINISHED = (Status.QUEUED, Status.RUNNING)
"""Statuses of an experiment that has not ended."""


class RunStatus(StrEnum):
    """Status of one attempt."""

    RUNNING = "running"
    """Training now."""
    COMPLETED = "completed"
    """As the experiment's."""
    FAILED = "failed"
    """As the experiment's."""
    CANCELLED = "cancelled"
    """As the experiment's."""
    DIVERGED = "diverged"
    """As the experiment's."""
    HANDED_BACK = "handed_back"
    """Its worker shut down and gave it back after a checkpoint; does not count as a failed attempt."""
    LOST = "lost"
    """Its process or worker died or fell silent; counts as a failed attempt."""


class EventKind(StrEnum):
    """Kind of an event."""

    STATE = "state"
    """The experiment's status changed."""
    EPOCH = "epoch"
    """An epoch was measured; the data are its metrics."""
    VERDICT = "verdict"
    """There is a new verdict; the data are it."""
    NOTICE = "notice"
    """A notice for the user: {"code", "text", "data"}."""


class ArtifactKind(StrEnum):
    """Kind of a stored file."""

    CHECKPOINT = "checkpoint"
    """All that is needed to resume training."""
    WEIGHTS_BEST = "weights-best"
    """Weights of the best epoch."""
    WEIGHTS_LAST = "weights-last"
    """Weights of the last finite epoch."""
    WEIGHTS_EPOCH = "weights-epoch"
    """Weights of one of the epochs that are kept for timelines, in 16 bits."""
    WEIGHTS_INITIAL = "weights-initial"
    """Another experiment's weights, from which training starts (model.init_from)."""
    KERNELS = "kernels"
    """The first layer's kernels of every epoch."""
    OUTPUTS_VALIDATION = "outputs-validation"
    """The best weights' logits on the validation split."""
    OUTPUTS_TEST = "outputs-test"
    """The same on the test split."""
    GRAPH = "graph"
    """The network as an ONNX graph without weights, for all weights of the run."""


class MeasurementKind(StrEnum):
    """A short measurement that a worker makes beside the queue."""

    PREFLIGHT = "preflight"
    """A few real steps of a spec that is not queued yet."""
    LR_TEST = "lr-test"
    """A learning-rate test."""
    EXPLANATION = "explanation"
    """Which pixels a prediction depends on, or a layer's outputs for an image."""
    AUGMENTED = "augmented"
    """A picture of training images as a spec's augmentation makes them."""
    COMBINED = "combined"
    """The score of several runs whose probabilities or weights are averaged."""
    ROBUSTNESS = "robustness"
    """The score of weights on corrupted images."""

    @property
    def is_waited_for(self) -> bool:
        """Whether a request waits for it, so that it is of no use later."""
        return self not in (MeasurementKind.LR_TEST, MeasurementKind.COMBINED, MeasurementKind.ROBUSTNESS)


class MeasurementStatus(StrEnum):
    """Status of a measurement."""

    QUEUED = "queued"
    """Waits for a worker."""
    RUNNING = "running"
    """A worker measures."""
    COMPLETED = "completed"
    """`result` is there."""
    FAILED = "failed"
    """`reason` says why there is no result."""


class Role(StrEnum):
    """What an API key may do."""

    VIEWER = "viewer"
    """Read everything, predict; change nothing."""
    SUBMITTER = "submitter"
    """Everything a viewer may; submit, cancel, resume and delete."""


class WeightsChoice(StrEnum):
    """Which of an experiment's two sets of weights."""

    BEST = "best"
    """Of the best epoch."""
    LAST = "last"
    """Of the last finite epoch."""


class StudyState(StrEnum):
    """State of a study as it is stored; how far it is follows from its experiments."""

    MEASURING = "measuring"
    """Dry runs are made, by which its rows are fitted into the budget."""
    RUNNING = "running"
    """Its rows are run."""
    COMPLETED = "completed"
    """All of its runs have ended, well or not."""
    CANCELLED = "cancelled"
    """Ended by a request to cancel; it can be resumed."""
    FAILED = "failed"
    """None of its rows could be run; `reason` says why."""

    @property
    def active(self) -> bool:
        """Whether a worker still has something to do for it."""
        return self in (StudyState.MEASURING, StudyState.RUNNING)


class StudyStatus(StrEnum):
    """Status of a study as it is shown and filtered by: its state, where one whose runs all wait is queued."""

    MEASURING = "measuring"
    """Dry runs are made, by which its rows are fitted into the budget."""
    QUEUED = "queued"
    """None of its runs has begun."""
    RUNNING = "running"
    """Its rows are run."""
    COMPLETED = "completed"
    """All of its runs have ended, well or not."""
    CANCELLED = "cancelled"
    """Ended by a request to cancel."""
    FAILED = "failed"
    """None of its rows could be run."""


class DatasetStatus(StrEnum):
    """Status of a version of an uploaded dataset."""

    IMPORTING = "importing"
    """Waits for a worker, or is read by one."""
    READY = "ready"
    """Can be trained on; it never changes."""
    FAILED = "failed"
    """Was not made; `reason` says why."""


class DatasetJobKind(StrEnum):
    """What a worker does with a version of a dataset, beside the queue."""

    IMPORT = "import"
    """Read an uploaded archive into it."""
    CHANGE = "change"
    """Make it of an earlier version, with images relabelled or dropped."""
    HEALTH = "health"
    """Check it: duplicates, leakage, dark and blurred images, suspect labels."""


class DeliveryStatus(StrEnum):
    """Status of a message to a webhook."""

    PENDING = "pending"
    """Waits for its next attempt."""
    SENDING = "sending"
    """Is being sent."""
    DELIVERED = "delivered"
    """The receiver answered with a status from 200 to 299."""
    FAILED = "failed"
    """Given up: after the last attempt, or since the webhook was disabled."""
