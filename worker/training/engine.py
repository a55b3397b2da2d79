"""train() trains a spec on a dataset, sends the epochs to a sink, and returns an outcome.

Reading order:

engine.py       a run: epochs, checkpoints, how it ends
loop.py         train_epoch and evaluate
step.py         forward_backward and optimizer_step
state.py        all that changes while training

Modules they use: build.py (all of it), criterion.py, optimizers.py, schedules.py, precision.py, averaging.py;
guard.py, meters.py, stopping.py, watch.py, graphs.py on the loop; evaluator.py for what is measured with its weights;
checkpoints.py, recorder.py, outputs.py, history.py, verdicts.py, environment.py for what is written; tuning.py,
thread_control.py, trial.py, neighbours.py for how the machine is used.

batches/        the network's inputs
diagnosis/      why a run diverged, which learning rate works, how it began, how its filters are
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from models.curves.metrics import EpochMetrics
from models.data.dataset import ImageDataset
from models.notices import NoticeCode, NoticeData
from models.preprocessing import WeightsDescription
from models.progress import TestResult
from models.spec.experiment import ExperimentSpec, OnDivergence
from models.verdict.divergence import Divergence
from worker.training.batches.accumulation import micro_batches
from worker.training.build import build_batches, build_data, build_graphs, build_state, input_size_in
from worker.training.checkpoints import first_usable, own_checkpoints, save_checkpoint
from worker.training.diagnosis.aftermath import explain_divergence, restore_finite_weights
from worker.training.environment import describe_environment, peak_memory_mb
from worker.training.evaluator import BestValidation, Evaluator
from worker.training.graphs import GraphedSteps
from worker.training.guard import Diverged
from worker.training.history import RunHistory
from worker.training.kernels import KernelHistory
from worker.training.loop import train_epoch
from worker.training.meters import ClassCounts
from worker.training.recorder import Recorder
from worker.training.sink import MetricSink, Outcome
from worker.training.state import TrainingState
from worker.training.thread_control import ThreadControl
from worker.training.threads import ThreadHistory
from worker.training.timing import PhaseTimer
from worker.training.trial import Trial, build_trial
from worker.training.tuning import Tuning, choose_tuning
from worker.training.verdicts import Verdicts
from worker.training.watch import Interrupted, Watch

MAX_LOWERED = 3
"""How often `on_divergence: lower_lr` restarts a run."""
QUICK_SECONDS = 3.0
"""A run that was cancelled or diverged measures its best weights once more only if validation takes no longer."""

Asked = Literal["cancel", "shutdown", "stop"] | None
Stop = Callable[[], Asked]
STOPPED = "ended early by request"


def train(
    spec: ExperimentSpec,
    dataset: ImageDataset,
    sink: MetricSink,
    folder: Path,
    *,
    device: str = "auto",
    checkpoints: Sequence[Path] = (),
    should_stop: Stop = lambda: None,
    cache_dir: Path | None = None,
    thread_control: ThreadControl | None = None,
    cuda_graphs: bool = False,
    initial: Path | None = None,
) -> Outcome:
    """Train one experiment to its end, or until it is stopped.

    Files go to `folder`. `checkpoints` are those of earlier attempts, newest first; training resumes from the first
    readable one, with the result of an uninterrupted run. `should_stop` is called after each step and must only read a
    flag: on "shutdown" a checkpoint of that step is written and the outcome is handed_back; on "stop" the run ends as
    completed with the epochs that it has, at least one.
    `thread_control` sets the number of threads and serves one run only. `cuda_graphs` records steps on a GPU where
    possible. Uses torch's global random state and thread count: one run at a time in a process.
    """
    tuning = choose_tuning(spec, dataset, device, cuda_graphs=cuda_graphs)
    with tuning.applied(), thread_control or ThreadControl() as threads:
        run = _Run(spec, dataset, sink, folder, tuning, should_stop, cache_dir, threads, initial)
        run.start(checkpoints)
        return run.finish()


class _Run:
    """One call of train()."""

    state: TrainingState
    graphs: GraphedSteps | None
    recorder: Recorder
    verdicts: Verdicts
    evaluator: Evaluator

    def __init__(
        self,
        spec: ExperimentSpec,
        dataset: ImageDataset,
        sink: MetricSink,
        folder: Path,
        tuning: Tuning,
        should_stop: Stop,
        cache_dir: Path | None,
        thread_control: ThreadControl,
        initial: Path | None = None,
    ) -> None:
        self.spec = spec
        self.dataset = dataset
        self.sink = sink
        self.folder = folder
        self.tuning = tuning
        self.should_stop = should_stop
        self.cache_dir = cache_dir
        self.thread_control = thread_control
        self.identity = {"spec": spec.digest(), "course": spec.course_digest(), "dataset": dataset.fingerprint}
        """Identifies the run: only a checkpoint with the same values can be resumed from."""
        self.earlier: list[Path] = []
        """Checkpoints of earlier attempts, newest first."""
        self.data = build_data(spec, dataset, tuning, initial)
        self.batches = build_batches(spec, self.data, tuning)
        self.history = RunHistory()
        self.timer = PhaseTimer()
        self.validation_seconds = math.inf
        """Seconds of the last validation."""

    def start(self, checkpoints: Sequence[Path]) -> None:
        """Build the initial state, or restore the newest usable checkpoint's."""
        self.sink.progress(1, 0, 0, None, "preparing")
        self.earlier = list(checkpoints)
        with self.timer.phase("preparing"):
            checkpoint, refused = first_usable(checkpoints, self.identity)
            for unusable, reason in refused:
                text = f"A checkpoint is skipped: {reason}"
                self.sink.notice(NoticeCode.CHECKPOINT_UNUSABLE, text, {"file": unusable.name})
            self._restore(checkpoint.state if checkpoint else None)
        threads = ThreadHistory()
        if checkpoint:
            self.history.load_state_dict(checkpoint.state["history"])
            threads = ThreadHistory.from_json(checkpoint.state["thread_changes"])
            if not self.recorder.carry_over(checkpoint.path.parent, self.state.best.epoch):
                self._forget_best()
            where = f"epoch {self.state.epoch}, step {self.state.step}"
            data: NoticeData = {"epoch": self.state.epoch, "step": self.state.step, "file": checkpoint.path.name}
            self.sink.notice(NoticeCode.RESUMED, f"Training resumes at {where} from {checkpoint.path.name}", data)
        with self.timer.phase("preparing"):
            self._choose_threads(threads)
        self._report_environment()

    def _forget_best(self) -> None:
        """Choose the best epoch anew from the coming ones, since the weights of the best one so far are lost."""
        if epoch := self.state.best.epoch:
            text = f"The weights of epoch {epoch}, the best so far, are lost: the best epoch is chosen from later ones"
            if self.state.epoch > self.spec.epochs:
                text = f"The weights of epoch {epoch}, the best, are lost: they cannot be measured on the test split"
            self.sink.notice(NoticeCode.BEST_WEIGHTS_LOST, text, {"epoch": epoch})
        self.state.best.forget()

    def finish(self) -> Outcome:
        """Train the remaining epochs and return the outcome."""
        try:
            outcome = self._train_epochs()
        except Interrupted as interrupted:
            outcome = self._end_interrupted(interrupted.asked)
        self._report_environment()
        return outcome

    def _train_epochs(self) -> Outcome:
        while self.state.epoch <= self.spec.epochs and not self.state.early_stopping.should_stop:
            try:
                self._run_epoch()
            except Interrupted as interrupted:
                if interrupted.asked != "stop":
                    raise
                return self._end_stopped()
            except Diverged as diverged:
                if self.spec.on_divergence != OnDivergence.LOWER_LR or self.state.schedule.times_lowered >= MAX_LOWERED:
                    return self._end_diverged(diverged)
                self._go_back_with_lower_lr(diverged)
        self._judge_finished(self._validate_best(self.should_stop))
        return Outcome("completed", None, self._test())

    def _run_epoch(self) -> None:
        """Train, validate, append the metrics, save, in this order. Raises Diverged and Interrupted."""
        state = self.state
        watch = Watch(state, self.batches, self.sink, self._asked, self._save_checkpoint, self._adapt_threads)
        state.clock.start()
        with self.timer.phase("training"):
            self._train_rest_of_epoch(watch)
        training_seconds = state.clock.seconds()
        began = time.perf_counter()
        with self.timer.phase("validating"):
            watch.begin_phase("validating")
            classes = ClassCounts(len(self.data.preprocessing.class_names))
            with state.measured_weights():
                val_loss, val_accuracy = self.evaluator.evaluate(self.data.validation, watch, classes=classes)
        self.validation_seconds = time.perf_counter() - began
        state.finite_guard.check_validation(val_loss, state.epoch, state.step)
        means = state.meters.means()
        metrics = EpochMetrics(
            epoch=state.epoch,
            train_loss=means.loss,
            train_accuracy=means.accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=state.schedule.lr_at(state.total_steps - 1),
            grad_norm=means.grad_norm,
            seconds=state.clock.seconds(),
            images_per_second=len(self.data.train) / training_seconds,
            peak_memory_mb=peak_memory_mb(self.tuning.device),
        )
        with self.timer.phase("saving"):
            self._end_epoch(metrics, classes.accuracies())

    def _train_rest_of_epoch(self, watch: Watch) -> None:
        """Train from the state's step: 0, or the step of a checkpoint saved within the epoch."""
        state, spec = self.state, self.spec
        state.begin_training()
        size = input_size_in(spec, state.epoch, self.data.input_format.size)
        if state.step < state.steps_per_epoch:
            self.batches.prefetch = self.tuning.prefetch or self.thread_control.has_spare_core
            rest = micro_batches(self.batches, state.criterion, state.epoch, size, state.step, spec.accumulate_batches)
            self.thread_control.begin_training(state.place, (size, state.freezing.is_frozen(state.epoch)))
            train_epoch(state, rest, watch.after_step, self.graphs)
            self.thread_control.end_training()

    def _end_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None]) -> None:
        """Append the metrics, save weights, kernels and a checkpoint, give a verdict.

        The checkpoint comes last: a run killed before it is written trains the epoch again and writes the same files.
        """
        state = self.state
        self._append(metrics, class_accuracy)
        if state.schedule.end_epoch(metrics.val_loss):
            lr = state.schedule.lr_at(state.total_steps)
            text = f"The validation loss has stopped improving: the learning rate is now {lr:.3g}"
            self.sink.notice(NoticeCode.LR_REDUCED, text, {"lr": lr})
        state.early_stopping.update(metrics)
        is_best = state.best.update(metrics)
        with state.measured_weights():
            self.recorder.save_weights("last", state.network, metrics.epoch)
            if is_best:
                self.recorder.save_weights("best", state.network, metrics.epoch)
            self.recorder.save_epoch(state.network, metrics.epoch)
            self.recorder.add_kernels(state.network, metrics.epoch, is_best=is_best)
        state.begin_epoch(metrics.epoch + 1)
        self._save_checkpoint()
        self.verdicts.judge_if_due(self.recorder.kernels.by_epoch)

    def _test(self) -> TestResult | None:
        return self.evaluator.test_best(self.should_stop) if self.spec.dataset.evaluate_test else None

    def _validate_best(self, should_stop: Stop) -> BestValidation:
        return self.evaluator.validate_best(should_stop, num_epochs=len(self.history.epochs))

    def _validate_best_if_quick(self) -> BestValidation:
        """As `_validate_best`, but only if it is quick: a cancelled run is killed after some seconds."""
        return self._validate_best(lambda: None) if self.validation_seconds <= QUICK_SECONDS else (None, [])

    def _asked(self) -> Asked:
        """What is asked of a run while it trains: it is not ended early before its first epoch."""
        asked = self.should_stop()
        return None if asked == "stop" and not self.history.epochs else asked

    def _end_stopped(self) -> Outcome:
        """End as completed with the weights of the last whole epoch; what was trained of the next one is dropped."""
        calibration, _ = self._validate_best(self.should_stop)
        self.recorder.write_kernels()
        self.verdicts.judge_finished(self.recorder.kernels.by_epoch(), filters=None, calibration=calibration)
        return Outcome("completed", STOPPED, self._test())

    def _end_interrupted(self, asked: str) -> Outcome:
        """Save a checkpoint for another worker, or the weights of a cancelled run."""
        if asked == "shutdown":
            self._save_checkpoint()
            return Outcome("handed_back", "the worker was asked to shut down")
        self._save_last_weights(self.state.epoch)
        if self.history.epochs:
            calibration, _ = self._validate_best_if_quick()
            self.verdicts.judge_finished(self.recorder.kernels.by_epoch(), filters=None, calibration=calibration)
        return Outcome("cancelled", "cancelled by request")

    # Divergence

    def _go_back_with_lower_lr(self, diverged: Diverged) -> None:
        """Resume from the last checkpoint with a tenth of the learning rate."""
        times_lowered = self.state.schedule.times_lowered + 1
        lr = self.state.schedule.lr_at(self.state.total_steps, lowered_again=True)
        found = self._explain(diverged, lowered_to=lr)
        self._restore(self._last_saved(), times_lowered)
        self.history.go_back_to(self.state.epoch)
        happened = found.what_happened
        text = f"{happened[:1].upper()}{happened[1:]}; back to epoch {self.state.epoch}, learning rate {lr:.3g}"
        data: NoticeData = {"epoch": found.epoch, "step": found.step, "what": found.what, "lr": lr}
        self.sink.notice(NoticeCode.LR_LOWERED, text, data)

    def _end_diverged(self, diverged: Diverged) -> Outcome:
        """Save the last finite weights, append the epoch that diverged, and explain the divergence."""
        state, nan = self.state, math.nan
        restore_finite_weights(state, self._last_saved)
        self._save_last_weights(diverged.epoch - 1)
        self._append(
            EpochMetrics(
                epoch=state.epoch,
                train_loss=nan,
                train_accuracy=nan,
                val_loss=nan,
                val_accuracy=nan,
                lr=state.schedule.lr_at(state.total_steps),
                grad_norm=nan,
                seconds=state.clock.seconds(),
                images_per_second=nan,
                peak_memory_mb=peak_memory_mb(self.tuning.device),
            )
        )
        found = self._explain(diverged, lowered_to=None)
        self._judge_finished(self._validate_best_if_quick())
        advice = f"; a learning rate of {found.suggested_lr:.2g} works" if found.suggested_lr else ""
        return Outcome("diverged", f"{found.what_happened}{advice}")

    def _explain(self, diverged: Diverged, *, lowered_to: float | None) -> Divergence:
        """Find the cause of a divergence by training on from the weights before it."""
        restore_finite_weights(self.state, self._last_saved)
        with self.timer.phase("explaining"):
            self.sink.progress(diverged.epoch, diverged.step, self.state.steps_per_epoch, None, "explaining")
            found = explain_divergence(
                diverged, self.spec, self.data, self.batches, self.state, self.cache_dir, lowered_to=lowered_to
            )
        self.history.divergences.append(found)
        return found

    # Saving and restoring

    def _save_checkpoint(self) -> None:
        state = self.state.state_dict()
        content = {
            **state,
            "kernels": self.recorder.kernels.state_dict(),
            "history": self.history.state_dict(),
            "thread_changes": self.thread_control.history.as_json(),
        }
        path = save_checkpoint(self.folder, content, self.identity)
        self.sink.save("checkpoint", state["epoch"] if state["step"] else state["epoch"] - 1, path)

    def _restore(self, saved: dict[str, Any] | None, times_lowered: int = 0) -> None:
        """Build the state before the first step and load a checkpoint into it; None loads nothing."""
        with self.thread_control.one_thread():  # initial weights must not depend on how many threads sum
            self.state = build_state(
                self.spec, self.data, self.batches, self.tuning, self.cache_dir, times_lowered=times_lowered
            )
        kernels = KernelHistory()
        if saved is not None:
            self.state.load_state_dict(saved)
            kernels.load_state_dict(saved["kernels"])
        preprocessing = self.data.preprocessing
        about: WeightsDescription = {
            "model": self.spec.model.model_dump(mode="json", exclude={"init_from"}),
            "preprocessing": preprocessing.to_json(),
            "test_time_augmentation": self.spec.test_time_augmentation,
        }
        self.graphs = build_graphs(self.spec, self.state, self.tuning)
        self.recorder = Recorder(self.folder, self.sink, about, kernels)
        self.verdicts = Verdicts(self.spec, len(preprocessing.class_names), self.history, self.sink)
        self.evaluator = Evaluator(
            self.spec,
            self.data,
            self.batches,
            self.tuning.eval_batch,
            self.state,
            self.recorder,
            self.timer,
            lambda should_stop: Watch(self.state, self.batches, self.sink, should_stop, self._save_checkpoint),
        )

    def _last_saved(self) -> dict[str, Any] | None:
        """The newest usable checkpoint's content, of this attempt or an earlier one."""
        checkpoint, _ = first_usable([*own_checkpoints(self.folder), *self.earlier], self.identity)
        return checkpoint.state if checkpoint else None

    def _save_last_weights(self, epoch: int) -> None:
        with self.state.measured_weights():
            self.recorder.save_weights("last", self.state.network, epoch)
        self.recorder.write_kernels()

    # Environment

    def _append(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        self.history.epochs.append(metrics)
        self.sink.append_epoch(metrics, class_accuracy)

    def _judge_finished(self, best: BestValidation) -> None:
        calibration, doubts = best
        filters, beginning = self.evaluator.filters_and_beginning()
        self.recorder.write_kernels()
        self.verdicts.judge_finished(self.recorder.kernels.by_epoch(), filters, calibration, doubts, beginning)

    def _report_environment(self) -> None:
        """Send the environment to the sink: at the start, and with the seconds of each phase at the end."""
        environment = describe_environment(
            self.tuning, self.thread_control, self.dataset.fingerprint, self.state.mixed_precision.precision
        )
        seconds = {phase: round(value, 3) for phase, value in self.timer.seconds.items()}
        graphs = None if self.graphs is None else self.graphs.failure or "recorded"
        self.sink.environment({**environment, "cuda_graphs": graphs, "seconds": seconds})

    # Threads

    def _choose_threads(self, history: ThreadHistory) -> None:
        """Choose the number of threads, given the history of their number so far."""
        if self.tuning.device.type != "cpu":
            self.thread_control.serve_device()
            return
        self.thread_control.tell = self._tell_of_threads
        self.thread_control.begin(
            self.state.place,
            self._trial,
            most=self.tuning.most_threads,
            steps_left=self.state.steps_per_epoch * (self.spec.epochs - self.state.epoch + 1),
            history=history,
        )

    def _adapt_threads(self) -> None:
        self.thread_control.after_step(self.state.place)

    def _trial(self) -> Trial:
        return build_trial(self.spec, self.data, self.state, self.tuning.chunk_images)

    def _tell_of_threads(self, code: NoticeCode, text: str, data: NoticeData) -> None:
        self.sink.notice(code, text, data)
        self._report_environment()
