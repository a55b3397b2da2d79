"""The input of a verdict: a history and what else is known of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.curves.stability import Stability
from models.evaluation.calibration import Calibration
from models.evaluation.doubts import LabelDoubts
from models.spec.experiment import ExperimentSpec
from models.verdict.beginning import Beginning
from models.verdict.best import Best
from models.verdict.curves import Curves
from models.verdict.divergence import Divergence
from models.verdict.filters import FilterHealth


@dataclass(frozen=True)
class Case:
    """A history with what is known of its run; every question of a verdict receives it."""

    curves: Curves
    spec: ExperimentSpec
    by_loss: Best | None
    by_accuracy: Best | None
    stability: Stability | None
    """None with fewer than four epochs."""
    kernels: Mapping[int, np.ndarray] | None
    """The first layer's (out, in, height, width) by epoch."""
    filters: FilterHealth | None
    divergences: Sequence[Divergence]
    calibration: Calibration | None
    """Of the best weights on the validation split, once a run has ended."""
    finished: bool
    doubts: Sequence[LabelDoubts] = ()
    """Of the best weights on parts of the splits, once a run has ended."""
    beginning: Beginning | None = None
    """What the run began with, once it has ended; None where it was not measured."""
