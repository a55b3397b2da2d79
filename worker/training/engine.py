"""train(): a spec and a dataset in, epochs out to a sink, and an outcome.

build.py        everything a run needs          batches/                       what the network is shown
loop.py         train_epoch and evaluate        tally.py, guard.py, watch.py   what hangs on the loop
state.py        all that moves                  checkpoints.py, recorder.py    what is written
tuning.py, crew.py   how the machine is used    reporter.py, environment.py    what is said about it
diagnosis/      why a run diverged, which rate works, how its filters are
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from models.curves.metrics import EpochMetrics
from models.data.dataset import ImageDataset
from models.spec.experiment import ExperimentSpec, OnDivergence
from models.verdict.divergence import Divergence
from worker.training.batches.loader import Split, first_images, plain_batches
from worker.training.build import build_batches, build_data, build_state, input_size_in, steps
from worker.training.checkpoints import first_usable, own_checkpoints, save_checkpoint
from worker.training.crew import Crew
from worker.training.diagnosis.aftermath import explain_divergence, make_finite
from worker.training.diagnosis.filters import filter_health
from worker.training.environment import describe_environment, peak_memory_mb
from worker.training.guard import Diverged
from worker.training.kernels import KernelHistory
from worker.training.loop import evaluate, train_epoch
from worker.training.recorder import Recorder
from worker.training.reporter import Reporter
from worker.training.sink import MetricSink, Outcome
from worker.training.state import TrainingState
from worker.training.stopping import Best
from worker.training.threads import Place, ThreadHistory
from worker.training.trial import Trial, build_trial
from worker.training.tuning import Tuning, choose_tuning
from worker.training.watch import Interrupted, Watch

MAX_LOWERED = 3
"""How often `on_divergence: lower_lr` tries again."""
LOWERED_BY = 0.1
FILTER_IMAGES = 256
"""Validation images that the last verdict shows to the filters."""

Stop = Callable[[], Literal["cancel", "shutdown"] | None]


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
    crew: Crew | None = None,
) -> Outcome:
    """Train one experiment to its end, or until it is stopped.

    Files go to `folder`. `checkpoints` are those of earlier attempts, newest first; the first that can be read is gone
    on from, and the result is that of a run that was never interrupted. `should_stop` is asked after every step and
    must only read a flag: on "shutdown" a checkpoint of that very step is written and the outcome is handed_back.
    `crew` says how many threads compute, and is used up.
    Uses torch's global random state and thread count: one run at a time in a process.
    """
    tuning = choose_tuning(spec, dataset, device)
    with tuning.applied(), crew or Crew() as threads:
        run = _Run(spec, dataset, sink, folder, tuning, should_stop, cache_dir, threads)
        run.start(checkpoints)
        return run.finish()


class _Run:
    """One call of train()."""

    state: TrainingState

    def __init__(
        self,
        spec: ExperimentSpec,
        dataset: ImageDataset,
        sink: MetricSink,
        folder: Path,
        tuning: Tuning,
        should_stop: Stop,
        cache_dir: Path | None,
        crew: Crew,
    ) -> None:
        self.crew = crew
        self.spec = spec
        self.dataset = dataset
        self.sink = sink
        self.folder = folder
        self.tuning = tuning
        self.should_stop = should_stop
        self.cache_dir = cache_dir
        self.checkpoints: list[Path] = []
        """Of earlier attempts, newest first."""
        self.identity = {"spec": spec.digest(), "dataset": dataset.fingerprint}
        self.data = build_data(spec, dataset, tuning)
        self.batches = build_batches(spec, self.data, tuning)
        about = {
            "model": spec.model.model_dump(mode="json"),
            "preprocessing": self.data.preprocessing.to_json(),
            "test_time_augmentation": spec.test_time_augmentation,
        }
        self.recorder = Recorder(folder, sink, about)
        self.reporter = Reporter(spec, dataset.info.num_classes, sink)

    def start(self, checkpoints: Sequence[Path]) -> None:
        """Build the first state, or the one that the newest usable checkpoint holds."""
        self.sink.progress(1, 0, 0, None, "preparing")
        self.checkpoints = list(checkpoints)
        with self.reporter.phase("preparing"):
            path, saved, refused = first_usable(checkpoints, self.identity)
            for unusable, reason in refused:
                self.sink.notice("checkpoint-unusable", f"Passed over a checkpoint: {reason}", {"file": unusable.name})
            history = self._build(saved)
        if path is not None:
            if not self.recorder.carry_over(path.parent, self.state.judgement.best.epoch):
                self.state.judgement.best = Best()  # whose weights are lost: the best from here on
            where = f"epoch {self.state.epoch}, step {self.state.step}"
            data = {"epoch": self.state.epoch, "step": self.state.step, "file": path.name}
            self.sink.notice("resumed", f"Going on at {where} from {path.name}", data)
        with self.reporter.phase("preparing"):
            self._begin_with_threads(history)
        self._report_environment()

    def finish(self) -> Outcome:
        """Train the epochs that are left and say how it ended."""
        try:
            outcome = self._train()
        except Interrupted as interrupted:
            outcome = self._end_interrupted(interrupted.asked)
        self._report_environment()
        return outcome

    def _train(self) -> Outcome:
        while self.state.epoch <= self.spec.epochs and not self.state.judgement.stop:
            try:
                self._train_one_epoch()
            except Diverged as diverged:
                if not self._go_back_slower(diverged):
                    return self._end_diverged(diverged)
        self._judge_finally()
        return Outcome("completed", None, self._test() if self.spec.dataset.evaluate_test else None)

    def _build(self, saved: dict[str, Any] | None) -> ThreadHistory:
        """The state before the first step, and on it what a checkpoint holds. Returns how many threads led there."""
        with self.crew.one_thread():
            self.state = build_state(self.spec, self.data, self.batches, self.tuning, self.cache_dir)
        self.recorder.kernels, self.recorder.unwritten = KernelHistory(), False
        if saved is None:
            return ThreadHistory()
        self.recorder.kernels.load_state_dict(saved.pop("kernels"))
        history = ThreadHistory.of_checkpoint(saved)
        self.reporter.load_state_dict(saved.pop("report"))
        self.state.load_state_dict(saved)
        return history

    def _begin_with_threads(self, history: ThreadHistory) -> None:
        """Choose how many threads compute."""
        if self.tuning.device.type != "cpu":
            self.crew.serve_device()
            return
        self.crew.tell = self._tell_of_threads
        self.crew.begin(
            self._place(),
            self._trial,
            most=self.tuning.most_threads,
            steps_left=self.state.steps_per_epoch * (self.spec.epochs - self.state.epoch + 1),
            history=history,
        )

    def _look_at_threads(self) -> None:
        self.crew.after_step(self._place())

    def _trial(self) -> Trial:
        return build_trial(self.spec, self.data, self.state, self.tuning.chunk_images)

    def _place(self) -> Place:
        return Place(self.state.times_lowered, self.state.epoch, self.state.step)

    def _tell_of_threads(self, code: str, text: str, data: dict[str, Any]) -> None:
        self.sink.notice(code, text, data)
        self._report_environment()

    def _train_one_epoch(self) -> None:
        """Train, evaluate, append, save, in this order."""
        state = self.state
        watch = Watch(state, self.batches, self.sink, self.should_stop, self._checkpoint, self._look_at_threads)
        state.clock.start()
        with self.reporter.phase("training"):
            self._train_rest_of_epoch(watch)
        training_seconds = state.clock.seconds()
        with self.reporter.phase("validating"):
            watch.begin_phase("validating")
            val_loss, val_accuracy = self._measure(self.data.validation, watch.after_measuring)
        train_loss, train_accuracy, grad_norm = state.tally.means()
        if not math.isfinite(val_loss):
            raise Diverged(state.epoch, state.step - 1, "loss")
        metrics = EpochMetrics(
            epoch=state.epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=state.schedule.lr_at(state.total_steps - 1),
            grad_norm=grad_norm,
            seconds=state.clock.seconds(),
            images_per_second=len(self.data.train) / training_seconds,
            peak_memory_mb=peak_memory_mb(self.tuning.device),
        )
        with self.reporter.phase("saving"):
            self._end_epoch(metrics)

    def _train_rest_of_epoch(self, watch: Watch) -> None:
        state, spec = self.state, self.spec
        state.begin_training()
        size = input_size_in(spec, state.epoch, self.data.input_format.size)
        if state.step < state.steps_per_epoch:
            self.batches.prefetch = self.tuning.prefetch or self.crew.has_spare_core
            rest = steps(self.batches, state.objective, state.epoch, size, state.step, spec.accumulate_batches)
            self.crew.begin_training(self._place(), (size, state.freezing.is_frozen(state.epoch)))
            train_epoch(state, rest, watch.after_step)
            self.crew.end_training()

    def _end_epoch(self, metrics: EpochMetrics) -> None:
        state = self.state
        self.reporter.append(metrics)
        if state.schedule.end_epoch(metrics.val_loss):
            lr = state.schedule.lr_at(state.total_steps)
            self.sink.notice("lr-reduced", f"The validation loss stands still: rate {lr:.3g}", {"lr": lr})
        is_best = state.judgement.take(metrics)
        with state.measured_weights():
            self.recorder.save_weights("last", state.network, metrics.epoch)
            if is_best:
                self.recorder.save_weights("best", state.network, metrics.epoch)
            self.recorder.add_kernels(state.network, metrics.epoch, is_best=is_best)
        state.begin_epoch(metrics.epoch + 1)
        self._checkpoint()
        self.reporter.judge(self.recorder.kernels.by_epoch)

    def _measure(self, split: Split, after_batch: Callable[[int], None]) -> tuple[float, float]:
        batches = plain_batches(split, self.data.input_format, self.tuning.eval_batch)
        with self.state.measured_weights():
            return evaluate(self.state.network, batches, self.spec.test_time_augmentation, after_batch)

    def _test(self) -> dict[str, Any]:
        """Measure the best weights once on the test split."""
        best, epoch = self.recorder.load_weights("best")
        watch = Watch(self.state, self.batches, self.sink, self.should_stop, self._checkpoint)
        watch.begin_phase("testing")
        batches = plain_batches(self.data.test, self.data.input_format, self.tuning.eval_batch)
        with self.reporter.phase("testing"), self.state.weights_of(best):
            loss, accuracy = evaluate(
                self.state.network, batches, self.spec.test_time_augmentation, watch.after_measuring
            )
        return {"loss": loss, "accuracy": accuracy, "epoch": epoch}

    def _end_interrupted(self, asked: str) -> Outcome:
        """Keep everything for another worker, or what a cancelled run has come to."""
        if asked == "shutdown":
            self._checkpoint()
            return Outcome("handed_back", "the worker was asked to shut down")
        self._save_last(self.state.epoch)
        if self.reporter.history:
            self.reporter.judge_finally(self.recorder.kernels.by_epoch(), filters=None)
        return Outcome("cancelled", "cancelled by request")

    def _save_last(self, epoch: int) -> None:
        with self.state.measured_weights():
            self.recorder.save_weights("last", self.state.network, epoch)
        self.recorder.write_kernels()

    def _checkpoint(self) -> None:
        state = self.state.state_dict()
        content = {**state, "kernels": self.recorder.kernels.state_dict(), "report": self.reporter.state_dict()}
        content["thread_changes"] = self.crew.history.as_json()
        path = save_checkpoint(self.folder, content, self.identity)
        self.sink.save("checkpoint", state["epoch"] if state["step"] else state["epoch"] - 1, path)

    def _last_state(self) -> dict[str, Any] | None:
        """What the newest usable checkpoint holds, this attempt's or an earlier one's."""
        return first_usable([*own_checkpoints(self.folder), *self.checkpoints], self.identity)[1]

    def _go_back_slower(self, diverged: Diverged) -> bool:
        """Go back to the last checkpoint with a tenth of the rate, if the spec asks for that and tries are left."""
        lowered = self.state.times_lowered
        if self.spec.on_divergence != OnDivergence.LOWER_LR or lowered >= MAX_LOWERED:
            return False
        scale = self.state.schedule.scale * LOWERED_BY
        lr = self.state.schedule.lr_at(self.state.total_steps, scale)
        found = self._explain(diverged, lowered_to=lr)
        divergences = self.reporter.divergences
        self._build(self._last_state())
        self.reporter.divergences = divergences
        self.state.schedule.scale = scale
        self.state.times_lowered = lowered + 1
        happened = found.what_happened
        text = f"{happened[:1].upper()}{happened[1:]}; going back to epoch {self.state.epoch} at rate {lr:.3g}"
        data = {"epoch": found.epoch, "step": found.step, "what": found.what, "lr": lr}
        self.sink.notice("lr-lowered", text, data)
        return True

    def _end_diverged(self, diverged: Diverged) -> Outcome:
        """Keep the last finite weights, add the epoch in which the figures end, and explain."""
        state = self.state
        make_finite(state, self._last_state)
        self._save_last(diverged.epoch - 1)
        nan = math.nan
        self.reporter.append(
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
        self._judge_finally()
        advice = f"; {found.suggested_lr:.2g} would have worked as learning rate" if found.suggested_lr else ""
        return Outcome("diverged", f"{found.what_happened}{advice}")

    def _explain(self, diverged: Diverged, *, lowered_to: float | None) -> Divergence:
        """Find out what happened, from the weights of before it."""
        make_finite(self.state, self._last_state)
        with self.reporter.phase("explaining"):
            self.sink.progress(diverged.epoch, diverged.step, self.state.steps_per_epoch, None, "explaining")
            found = explain_divergence(
                diverged, self.spec, self.data, self.batches, self.state, self.cache_dir, lowered_to=lowered_to
            )
        self.reporter.divergences.append(found)
        return found

    def _judge_finally(self) -> None:
        with self.reporter.phase("judging"), self.state.measured_weights():
            images = first_images(self.data.validation, self.data.input_format, FILTER_IMAGES)
            filters = filter_health(self.state.network, self.state.initial, images=images)
        self.recorder.write_kernels()
        self.reporter.judge_finally(self.recorder.kernels.by_epoch(), filters=filters)

    def _report_environment(self) -> None:
        """Tell what the run is computed with: when it starts, and with the seconds of its phases when it ends."""
        environment = describe_environment(
            self.tuning, self.crew, self.dataset.fingerprint, self.state.arithmetic.precision
        )
        seconds = {phase: round(value, 3) for phase, value in self.reporter.seconds.items()}
        graphs = None if self.state.graphs is None else self.state.graphs.failure or "recorded"
        self.sink.environment({**environment, "cuda_graphs": graphs, "seconds": seconds})
