"""Evaluates a run's weights: on its splits, and for the verdict that it ends with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.evaluation.calibration import Calibration
from models.evaluation.doubts import LabelDoubts, doubts_of
from models.progress import TestResult
from models.spec.experiment import ExperimentSpec
from models.verdict.beginning import Beginning
from models.verdict.filters import FilterHealth
from worker.training.batches.loader import EpochBatches, Split, first_images, plain_batches
from worker.training.build import Data
from worker.training.diagnosis.beginning import measure_beginning
from worker.training.diagnosis.doubts import training_doubts
from worker.training.diagnosis.filters import filter_health
from worker.training.loop import evaluate
from worker.training.meters import ClassCounts
from worker.training.outputs import SplitOutputs
from worker.training.recorder import Recorder
from worker.training.state import TrainingState
from worker.training.timing import PhaseTimer
from worker.training.watch import Watch

FILTER_IMAGES = 256
"""Validation images on which the filters are measured for the last verdict."""

ShouldStop = Callable[[], str | None]

BestValidation = tuple[Calibration | None, Sequence[LabelDoubts]]
"""The calibration of the best weights on the validation split, and the labels that they doubt."""


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the network of a run. A `should_stop` is called after each batch."""

    spec: ExperimentSpec
    data: Data
    batches: EpochBatches
    eval_batch: int
    """Images in a batch."""
    state: TrainingState
    recorder: Recorder
    timer: PhaseTimer
    watch: Callable[[ShouldStop], Watch]
    """Makes what the evaluation loop calls after each batch."""

    def evaluate(
        self, split: Split, watch: Watch, outputs: SplitOutputs | None = None, classes: ClassCounts | None = None
    ) -> tuple[float, float]:
        """Loss and accuracy of the network on a split; `outputs` collects its logits, `classes` counts by class."""
        batches = plain_batches(split, self.data.input_format, self.eval_batch)
        return evaluate(
            self.state.network, batches, self.spec.test_time_augmentation, watch.after_measuring, outputs, classes
        )

    def test_best(self, should_stop: ShouldStop) -> TestResult | None:
        """Evaluate the best weights once on the test split, and store their logits; None if there are none."""
        if not self.state.best.epoch:
            return None
        best, epoch = self.recorder.load_weights("best")
        outputs = SplitOutputs("test", len(self.data.test), len(self.data.preprocessing.class_names))
        watch = self.watch(should_stop)
        watch.begin_phase("testing")
        with self.timer.phase("testing"), self.state.weights_of(best):
            loss, accuracy = self.evaluate(self.data.test, watch, outputs)
        self.recorder.save_outputs(outputs, epoch)
        return {"loss": loss, "accuracy": accuracy, "epoch": epoch}

    def validate_best(self, should_stop: ShouldStop, *, num_epochs: int) -> BestValidation:
        """Store the logits of the best weights on the validation split. `num_epochs` have been trained."""
        if not self.state.best.epoch:
            return None, []
        best, epoch = self.recorder.load_weights("best")
        outputs = SplitOutputs("validation", len(self.data.validation), len(self.data.preprocessing.class_names))
        watch = self.watch(should_stop)
        watch.begin_phase("validating")
        with self.timer.phase("validating"), self.state.weights_of(best):
            self.evaluate(self.data.validation, watch, outputs)
            outputs.add_statistics(self.data.validation)
            of_training = training_doubts(
                self.state.network,
                self.data.train,
                self.data.input_format,
                num_epochs=num_epochs,
                batch_size=self.eval_batch,
            )
        saved = self.recorder.save_outputs(outputs, epoch)
        if saved is None:
            return None, []
        doubts = (doubts_of("validation", saved.logits, saved.labels), of_training)
        return saved.about.calibration, [one for one in doubts if one is not None]

    def filters_and_beginning(self) -> tuple[FilterHealth, Beginning | None]:
        """How the filters of the measured weights are, and what the initial weights and first batches were like."""
        with self.timer.phase("judging"), self.state.measured_weights():
            images = first_images(self.data.validation, self.data.input_format, FILTER_IMAGES)
            filters = filter_health(self.state.network, self.state.initial_weights, images=images)
        with self.timer.phase("judging"), self.state.weights_of(self.state.initial_weights):
            return filters, measure_beginning(self.state.network, self.data, self.batches, self.spec.batch_size)
