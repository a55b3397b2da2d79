"""Records whole steps as CUDA graphs and replays them, for a GPU that computes faster than Python launches kernels.

A step of `baseline` at batch 16 is some 80 small kernels; launched one by one they take a millisecond. A graph refers
to tensors by address, so everything a step touches must stay where it is: its input, the weights, the optimizer's
state, and the learning rates, which are tensors on the device here. A step that cannot be recorded is computed
eagerly.

`make test-gpu` compares losses and weights with and without on a real card, where they are equal to the last bit.
EPOCHAL_CUDA_GRAPHS=false turns it off.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.spec.experiment import ExperimentSpec
from models.spec.training import RmspropSpec
from worker.training.batches.batch import Batch, MicroBatch
from worker.training.guard import DeferredFiniteGuard
from worker.training.precision import MixedPrecision
from worker.training.state import TrainingState
from worker.training.step import forward_backward, optimizer_step

WARM_UP_STEPS = 3
"""Steps on another stream before the recording, as torch requires; what they change is restored."""

Compute = Callable[[], None]


def can_be_recorded(spec: ExperimentSpec, mixed_precision: MixedPrecision) -> bool:
    """Whether every step is the same sequence of kernels with no number that Python computes for each step.

    Mixup's lam is such a number, as are the weights of accumulated micro-batches. Loss scaling, and the guard of an
    optimizer that torch has no fused version of (RMSprop), read from the device within the step.
    """
    return (
        spec.accumulate_batches == 1
        and spec.augmentation.mixup_alpha == 0
        and mixed_precision.scaler is None
        and not isinstance(spec.optimizer, RmspropSpec)
    )


@dataclass
class _Recording:
    """One recorded graph: its input tensors, its replay function, its output tensors."""

    images: Tensor
    labels: Tensor
    run: Compute
    logits: Tensor
    grad_norm: Tensor


class GraphedSteps:
    """The recordings of a run, one for each shape of batch, with and without a frozen body.

    `record_graph` records on the device; tests replace it by a computation on the CPU.
    """

    def __init__(self, state: TrainingState, record_graph: Callable[[Compute], Compute] | None = None) -> None:
        self.state = state
        self.record_graph = record_graph or CudaRecorder(state.device)
        self.recordings: dict[tuple[torch.Size, bool], _Recording] = {}
        self.failure: str | None = None
        """The reason why recording failed."""
        for group in state.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=state.device)  # Schedule.apply fills it in place
            if "capturable" in group and state.device.type == "cuda":
                group["capturable"] = True  # Adam's step count on the device, too

    def can_replay(self, batch: Batch) -> bool:
        """Whether a step of this kind has been recorded."""
        return self._kind(batch) in self.recordings

    def record(self, batch: Batch) -> bool:
        """Record the step of this batch without changing any state. False if that is not possible.

        A recording that failed is not tried again.
        """
        if self.failure is not None:
            return False
        before = _Snapshot(self.state)
        try:
            self.recordings[self._kind(batch)] = self._record(batch)
        except RuntimeError as error:
            self.failure = str(error).split("\n")[0]
        self.state.optimizer.zero_grad(set_to_none=True)
        before.restore()
        return self.failure is None

    def replay(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Replay the step. Returns copies of the logits (N, classes) and of the gradient's norm."""
        recording = self.recordings[self._kind(batch)]
        recording.images.copy_(batch.images, non_blocking=True)
        recording.labels.copy_(batch.labels, non_blocking=True)
        recording.run()
        return recording.logits.clone(), recording.grad_norm.clone()

    def _kind(self, batch: Batch) -> tuple[torch.Size, bool]:
        return batch.images.shape, self.state.freezing.is_frozen(self.state.epoch)

    def _record(self, batch: Batch) -> _Recording:
        fixed = Batch(batch.images.clone(memory_format=torch.preserve_format), batch.labels.clone())
        micro_batch = MicroBatch(fixed, weight=1, step_weight=1)  # equal: the plain mean over the batch
        written: dict[str, Tensor] = {}

        def compute() -> None:
            logits, loss = forward_backward(self.state, micro_batch)
            grad_norm = optimizer_step(self.state, loss)
            for name, value in (("logits", logits), ("grad_norm", grad_norm)):
                written[name] = written[name].copy_(value) if name in written else value.clone()

        run = self.record_graph(compute)
        return _Recording(fixed.images, fixed.labels, run, written["logits"], written["grad_norm"])


class CudaRecorder:
    """Records the kernels that a function launches; the function it returns replays them.

    Recordings are replayed one after the other, and none needs what another left, so they share their memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            """For all recordings and their warm-up: autograd keeps to the stream on which it first saw a weight."""
            self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Compute) -> Compute:
        """Record. Raises RuntimeError if something cannot be recorded; steps can be computed eagerly after it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            usual = torch.cuda.current_stream()
            self.stream.wait_stream(usual)
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UP_STEPS):
                    compute()
            usual.wait_stream(self.stream)
            try:
                # thread_local: another thread may prepare the next batches meanwhile, and allocate memory for them
                with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                    compute()
            except RuntimeError:
                _leave_recording(usual)
                raise
        return graph.replay


def _leave_recording(usual: torch.cuda.Stream) -> None:
    """Undo what a recording that failed leaves behind: its stream, a random state that is being recorded, memory."""
    torch.cuda.set_stream(usual)
    torch.cuda.default_generators[usual.device_index].graphsafe_set_state(torch.Generator(usual.device))
    torch.cuda.empty_cache()


class _Snapshot:
    """A copy of all that a step changes, restored in place: recordings refer to these tensors by address."""

    @torch.no_grad()  # a copy with a gradient would keep autograd's nodes of the weights, on a stream not recorded
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
        guard = self.state.finite_guard
        of_guard = guard.device_state() if isinstance(guard, DeferredFiniteGuard) else []
        return [*self.state.network.parameters(), *self.state.network.buffers(), *of_optimizer, *of_guard]
