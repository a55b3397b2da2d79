"""Notices: messages of a run to its user while it trains, kept as events."""

from enum import StrEnum

NoticeData = dict[str, str | int | float | None]
"""The figures and names that a notice's text mentions, by name."""


class NoticeCode(StrEnum):
    """Codes of notices."""

    RESUMED = "resumed"
    """Training resumes from a checkpoint."""
    CHECKPOINT_UNUSABLE = "checkpoint-unusable"
    """A checkpoint is damaged, or of another run, and is skipped."""
    LR_REDUCED = "lr-reduced"
    """The schedule has lowered the learning rate, because the validation loss has stopped improving."""
    LR_LOWERED = "lr-lowered"
    """After a divergence training continues from the last checkpoint with a tenth of the learning rate."""
    THREADS_CHANGED = "threads-changed"
    """The run computes with another number of threads from a step on."""
    THREADS_NOT_REPLAYED = "threads-not-replayed"
    """This machine has fewer cores than the run that is repeated used: the last bits may differ."""
    BEST_WEIGHTS_LOST = "best-weights-lost"
    """The weights of the best epoch are lost; the best epoch is chosen from later ones."""
    NOT_EXPORTED = "not-exported"
    """The network cannot be written as an ONNX graph, so it cannot make predictions."""
    PRUNED = "pruned"
    """A search ends this trial early: others are ahead of it."""
