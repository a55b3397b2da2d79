"""train(): a spec and a dataset in, epochs out to a sink, and an outcome.

build.py        everything a run needs          batches.py, augmentation.py    what the network is shown
loop.py         train_epoch and evaluate        tally.py, guard.py, watch.py   what hangs on the loop
state.py        all that moves                  checkpoints.py, recorder.py    what is written
tuning.py       how the machine is used         environment.py                 what it was
"""

import math
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch

from models.data.dataset import ImageDataset
from models.metrics import EpochMetrics
from models.spec.experiment import ExperimentSpec, OnDivergence
from worker.training.batches import Split, plain_batches
from worker.training.build import build_batches, build_data, build_state, input_size_in, steps
from worker.training.checkpoints import first_usable, save_checkpoint
from worker.training.environment import describe_environment
from worker.training.guard import Diverged
from worker.training.loop import evaluate, train_epoch
from worker.training.recorder import Recorder
from worker.training.sink import MetricSink, Outcome
from worker.training.state import TrainingState
from worker.training.tuning import Tuning, choose_tuning
from worker.training.watch import Interrupted, Watch

MAX_LOWERED = 3
"""How often `on_divergence: lower_lr` tries again."""
LOWERED_BY = 0.1

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
) -> Outcome:
    """Train one experiment to its end, or until it is stopped.

    Files go to `folder`. `checkpoints` are those of earlier attempts, newest first; the first that can be read is gone
    on from, and the result is that of a run that was never interrupted. `should_stop` is asked after every step and
    must only read a flag: on "shutdown" a checkpoint of that very step is written and the outcome is handed_back.
    Uses torch's global random state and thread count: one run at a time in a process.
    """
    tuning = choose_tuning(spec, dataset, device)
    with tuning.applied():
        run = _Run(spec, dataset, sink, folder, tuning, should_stop, cache_dir)
        run.start(checkpoints)
        return run.finish()


class _Run:
    """One call of train()."""

    def __init__(
        self,
        spec: ExperimentSpec,
        dataset: ImageDataset,
        sink: MetricSink,
        folder: Path,
        tuning: Tuning,
        should_stop: Stop,
        cache_dir: Path | None,
    ) -> None:
        self.spec = spec
        self.dataset = dataset
        self.sink = sink
        self.folder = folder
        self.tuning = tuning
        self.should_stop = should_stop
        self.cache_dir = cache_dir
        self.identity = {"spec": spec.digest(), "dataset": dataset.fingerprint}
        self.data = build_data(spec, dataset, tuning)
        self.batches = build_batches(spec, self.data, tuning)
        about = {"model": spec.model.model_dump(mode="json"), "preprocessing": self.data.preprocessing.to_json()}
        self.recorder = Recorder(folder, sink, about)
        self.state: TrainingState

    def start(self, checkpoints: Sequence[Path]) -> None:
        """Build the first state, or the one that the newest usable checkpoint holds."""
        self.sink.progress(1, 0, 0, None, "preparing")
        path, saved, refused = first_usable(checkpoints, self.identity)
        for unusable, reason in refused:
            self.sink.notice("checkpoint-unusable", f"Passed over a checkpoint: {reason}", {"file": unusable.name})
        self.state = build_state(self.spec, self.data, self.batches, self.tuning, self.cache_dir, fresh=saved is None)
        if path is not None and saved is not None:
            self._restore(saved)
            where = f"epoch {self.state.epoch}, step {self.state.step}"
            data = {"epoch": self.state.epoch, "step": self.state.step, "file": path.name}
            self.sink.notice("resumed", f"Going on at {where} from {path.name}", data)
        precision = self.state.arithmetic.precision.value
        self.sink.environment(describe_environment(self.tuning, self.dataset.fingerprint, precision))

    def finish(self) -> Outcome:
        """Train the epochs that are left and say how it ended."""
        try:
            while self.state.epoch <= self.spec.epochs:
                try:
                    stop = self._train_one_epoch()
                except Diverged as diverged:
                    if not self._lower_rate(diverged):
                        return self._end_diverged(diverged)
                else:
                    if stop:
                        break
            test = self._test() if self.spec.dataset.evaluate_test else None
        except Interrupted as interrupted:
            if interrupted.asked == "shutdown":
                self._checkpoint()
                return Outcome("handed_back", "the worker was asked to shut down")
            self._save_last(self.state.epoch)
            return Outcome("cancelled", "cancelled by request")
        return Outcome("completed", None, test)

    def _train_one_epoch(self) -> bool:
        """Train, evaluate, append, save, in this order. True if it is time to stop early."""
        state = self.state
        watch = Watch(state, self.batches, self.sink, self.should_stop, self._checkpoint)
        seconds_before, began = state.seconds, time.perf_counter()
        try:
            self._train_rest_of_epoch(watch)
            trained = time.perf_counter()
            watch.begin_phase("validating")
            val_loss, val_accuracy = self._measure(self.data.validation, watch.after_measuring)
        finally:
            state.seconds = seconds_before + time.perf_counter() - began
        train_loss, train_accuracy, grad_norm = state.tally.means()
        metrics = EpochMetrics(
            epoch=state.epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=state.schedule.lr_at(state.total_steps - 1),
            grad_norm=grad_norm,
            seconds=state.seconds,
            images_per_second=len(self.data.train) / (seconds_before + trained - began),
            peak_memory_mb=self._peak_memory_mb(),
        )
        self._end_epoch(metrics)
        return state.judgement.stopping.take(metrics)

    def _train_rest_of_epoch(self, watch: Watch) -> None:
        state, spec = self.state, self.spec
        state.freezing.set_training_mode(state.epoch)
        size = input_size_in(spec, state.epoch, self.data.input_format.size)
        if state.step < state.steps_per_epoch:
            rest = steps(self.batches, state.epoch, size, state.step, spec.accumulate_batches)
            train_epoch(state, rest, watch.after_step)

    def _end_epoch(self, metrics: EpochMetrics) -> None:
        state = self.state
        self.sink.append_epoch(metrics)
        if state.schedule.end_epoch(metrics.val_loss):
            lr = state.schedule.lr_at(state.total_steps)
            self.sink.notice("lr-reduced", f"The validation loss stands still: rate {lr:.3g}", {"lr": lr})
        self._save_last(metrics.epoch)
        if state.judgement.best.take(metrics):
            with self._measured_weights():
                self.recorder.save_weights("best", state.network, metrics.epoch)
        with self._measured_weights():
            self.recorder.add_kernels(state.network)
        state.begin_epoch(metrics.epoch + 1)
        self._checkpoint()

    def _measured_weights(self) -> Any:
        averaged = self.state.averaged
        return nullcontext() if averaged is None else averaged.in_place()

    def _measure(self, split: Split, after_batch: Callable[[int], None]) -> tuple[float, float]:
        batches = plain_batches(split, self.data.input_format, self.tuning.eval_batch)
        with self._measured_weights():
            return evaluate(self.state.network, batches, self.spec.test_time_augmentation, after_batch)

    def _test(self) -> dict[str, Any]:
        """Measure the best weights once on the test split."""
        loss, accuracy = self._measure(self.data.test, lambda done: None)
        return {"loss": loss, "accuracy": accuracy, "epoch": self.state.judgement.best.epoch}

    def _save_last(self, epoch: int) -> None:
        with self._measured_weights():
            self.recorder.save_weights("last", self.state.network, epoch)

    def _checkpoint(self) -> None:
        state = self.state.state_dict()
        path = save_checkpoint(self.folder, {**state, "kernels": self.recorder.kernels}, self.identity)
        done = state["epoch"] if state["step"] else state["epoch"] - 1
        self.sink.save("checkpoint", done, path)

    def _restore(self, saved: dict[str, Any]) -> None:
        self.recorder.kernels = saved.pop("kernels")
        self.state.load_state_dict(saved)

    def _lower_rate(self, diverged: Diverged) -> bool:
        """Go back to the last checkpoint with a tenth of the rate, if the spec asks for that and tries are left."""
        lowered = self.state.times_lowered
        if self.spec.on_divergence != OnDivergence.LOWER_LR or lowered >= MAX_LOWERED:
            return False
        scale = self.state.schedule.scale * LOWERED_BY
        _, saved, _ = first_usable(sorted(self.folder.glob("checkpoint-*.pt"), reverse=True), self.identity)
        self.state = build_state(self.spec, self.data, self.batches, self.tuning, self.cache_dir, fresh=saved is None)
        if saved is not None:
            self._restore(saved)
        self.state.schedule.scale = scale
        self.state.times_lowered = lowered + 1
        lr = self.state.schedule.lr_at(self.state.total_steps)
        data = {"epoch": diverged.epoch, "step": diverged.step, "what": diverged.what, "lr": lr}
        self.sink.notice(
            "lr-lowered", f"{str(diverged).capitalize()}; going back to epoch {self.state.epoch} at rate {lr:.3g}", data
        )
        return True

    def _end_diverged(self, diverged: Diverged) -> Outcome:
        self._save_last(diverged.epoch - 1)
        nan = math.nan
        state = self.state
        self.sink.append_epoch(
            EpochMetrics(
                epoch=state.epoch,
                train_loss=nan,
                train_accuracy=nan,
                val_loss=nan,
                val_accuracy=nan,
                lr=state.schedule.lr_at(state.total_steps),
                grad_norm=nan,
                seconds=state.seconds,
                images_per_second=nan,
                peak_memory_mb=self._peak_memory_mb(),
            )
        )
        return Outcome("diverged", str(diverged))

    def _peak_memory_mb(self) -> float:
        if self.tuning.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.tuning.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
