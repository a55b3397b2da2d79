"""Whole steps recorded once as CUDA graphs and replayed, for a GPU that is faster than Python can tell it what to do.

A step of `baseline` at batch 16 is some 80 small kernels; launched one by one they take a millisecond, replayed a tenth
of that. Everything a graph touches must stay where it is: its input, the weights, the optimizer's state, and the
learning rates, which are tensors on the device here. A step that cannot be recorded is computed as it always is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.spec.experiment import ExperimentSpec
from models.spec.training import RmspropSpec
from worker.training.batches.loader import Batch, Part
from worker.training.guard import DeferredGuard
from worker.training.precision import Arithmetic
from worker.training.state import TrainingState
from worker.training.step import add_gradient, change_weights

WARM_UP_STEPS = 3
"""Steps on another stream before the recording, as torch asks for; what they change is put back."""

Compute = Callable[[], None]


def can_be_recorded(spec: ExperimentSpec, arithmetic: Arithmetic) -> bool:
    """Whether every step is the same sequence of kernels, with no number in it that Python decides anew."""
    return (
        spec.accumulate_batches == 1
        and spec.augmentation.mixup_alpha == 0
        and arithmetic.scaler is None
        and not isinstance(spec.optimizer, RmspropSpec)
    )


@dataclass
class _Recording:
    """One graph: what it reads, what it writes, and how it is run."""

    images: Tensor
    labels: Tensor
    run: Compute
    outputs: Tensor
    norm: Tensor


class GraphedSteps:
    """The recordings of a run, one for each shape of batch, with and without a frozen body."""

    def __init__(self, state: TrainingState, record: Callable[[Compute], Compute] | None = None) -> None:
        self.state = state
        self.record = record or record_on_cuda
        self.recordings: dict[tuple[torch.Size, bool], _Recording] = {}
        self.failure: str | None = None
        """Why recording was given up."""
        self.keep_rates_on_device()

    def keep_rates_on_device(self) -> None:
        """Make the learning rates tensors, and forget recordings made with others. Called after a checkpoint too."""
        self.recordings.clear()
        for group in self.state.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=self.state.device)
            if "capturable" in group and self.state.device.type == "cuda":
                group["capturable"] = True

    def take(self, batch: Batch) -> bool:
        """Whether the step of this batch can be replayed; records it if it is the first of its kind."""
        if self.failure is None and self._kind(batch) not in self.recordings:
            before = _Snapshot(self.state)
            try:
                self.recordings[self._kind(batch)] = self._record(batch)
            except RuntimeError as error:
                self.failure = str(error).split("\n")[0]
            self.state.optimizer.zero_grad(set_to_none=True)
            before.restore()
        return self.failure is None

    def replay(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Do the step. Returns the outputs and the gradient's norm."""
        recording = self.recordings[self._kind(batch)]
        recording.images.copy_(batch.images, non_blocking=True)
        recording.labels.copy_(batch.labels, non_blocking=True)
        recording.run()
        return recording.outputs.clone(), recording.norm.clone()

    def _kind(self, batch: Batch) -> tuple[torch.Size, bool]:
        return batch.images.shape, self.state.freezing.is_frozen(self.state.epoch)

    def _record(self, batch: Batch) -> _Recording:
        fixed = Batch(batch.images.clone(memory_format=torch.preserve_format), batch.labels.clone())
        part = Part(fixed, weight=1, step_weight=1)
        made: dict[str, Tensor] = {}

        def compute() -> None:
            outputs, loss = add_gradient(self.state, part)
            norm = change_weights(self.state, loss)
            for name, value in (("outputs", outputs), ("norm", norm)):
                made[name] = made[name].copy_(value) if name in made else value.clone()

        run = self.record(compute)
        return _Recording(fixed.images, fixed.labels, run, made["outputs"], made["norm"])


def record_on_cuda(compute: Compute) -> Compute:
    """Record what `compute` gives the device to do; the result does it again."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
    return graph.replay


class _Snapshot:
    """All that a step changes, copied, to be put back in place: recordings know these tensors by their address."""

    def __init__(self, state: TrainingState) -> None:
        self.state = state
        self.saved = [(tensor, tensor.clone()) for tensor in self._tensors()]
        self.random = torch.cuda.get_rng_state(state.device) if state.device.type == "cuda" else torch.get_rng_state()

    @torch.no_grad()
    def restore(self) -> None:
        known = {id(tensor) for tensor, _ in self.saved}
        for tensor in self._tensors():
            if id(tensor) not in known:  # the optimizer's state, which its first step makes: at zero it is as new
                tensor.zero_()
        for tensor, value in self.saved:
            tensor.copy_(value)
        if self.state.device.type == "cuda":
            torch.cuda.set_rng_state(self.random, self.state.device)
        else:
            torch.set_rng_state(self.random)

    def _tensors(self) -> list[Tensor]:
        of_optimizer = [
            value
            for values in self.state.optimizer.state.values()
            for value in values.values()
            if isinstance(value, Tensor)
        ]
        guard = self.state.guard
        of_guard = [guard.skip, guard.number, guard.noted] if isinstance(guard, DeferredGuard) else []
        return [*self.state.network.parameters(), *self.state.network.buffers(), *of_optimizer, *of_guard]
