"""What happened when a loss, gradient or weight stopped being finite, found by running the guilty batches again."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.layers import head_of
from models.spec.experiment import ExperimentSpec
from models.verdict.divergence import Divergence, What
from worker.training.batches.batch import MicroBatch
from worker.training.diagnosis.lr_test import make_plan, suggest, sweep_rates, time_step
from worker.training.optimizers import Freezing, build_optimizer
from worker.training.step import clip_grad_norm

Step = Sequence[MicroBatch]
"""The batches whose gradients make one step."""
PartObjective = Callable[[Tensor, MicroBatch], Tensor]

Array = NDArray[np.float64]

MOST_STEPS = 64
FEWEST_STEPS = 4
MOST_BYTES = 64 * 2**20
"""Steps that are kept for the replay and the learning-rate test, and the memory that more than the fewest may take.

Of a single step as many accumulated batches are kept as this much memory holds.
"""
REPLAYED_STEPS = 40
REPLAY_SECONDS = 20.0
"""Steps, and time, after which a replay that stays finite is given up."""
SWEEP_SECONDS = 10.0
PROOF_STEPS = 60
"""Steps for which a suggested rate is trained at before it is asked whether the network has learned; then again."""
MOST_PROOF_STEPS = 300
FEWEST_PROOF_STEPS = 20
PROOF_SECONDS = 4.0
PROVEN_FALL = 0.02
"""A trial that lowered the loss by less than this part of it has learned nothing."""
SHOWN_NORMS = 50


@dataclass(frozen=True)
class Culprit:
    """What stopped being finite, and the first layer in which it did."""

    what: What
    layer: str | None
    layer_type: str | None
    step: int = 0
    """Of the replay, counted from 0."""


def explain(
    build_network: Callable[[], nn.Module],
    state: Mapping[str, Tensor] | None,
    parts: Iterable[MicroBatch],
    step: int,
    epoch: int,
    grad_norms: Sequence[float],
    spec: ExperimentSpec | None,
    *,
    what: What = "loss",
    lr: float | None = None,
    objective: PartObjective | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Divergence:
    """Explain a divergence; takes some 15 s on two cores, most of it the learning-rate test.

    `build_network` makes the network as it started (seed it there, so that it is that network). `state` are the weights
    before the guilty step, None for the starting ones. `parts` are the batches of one step after the other as the
    network takes them, on its device, the guilty step first; more of them make the learning-rate test more like
    the training.
    `step` and `epoch` count from 1; what is frozen in that epoch stays frozen. `what` is what the guard saw, used when
    the replay stays finite. `lr` is that step's rate, else the spec's. `objective` and `autocast` are the run's own;
    without them, the cross-entropy of each batch in full precision.
    """
    kept = _take(parts)
    rate = lr if lr is not None else spec.optimizer.lr if spec else None
    run = Training(build_network, spec, epoch, objective or _cross_entropy(spec), autocast)
    culprit = find_culprit(run, state, kept, rate)
    if culprit is None or (culprit.step > 0 and culprit.what != what):
        culprit = Culprit(what, None, None)  # what broke in a later step of the replay is not what the guard saw
    suggested, why = find_working_rate(run, kept, rate)
    return Divergence(
        epoch=epoch,
        step=step,
        what=culprit.what,
        layer=culprit.layer,
        layer_type=culprit.layer_type,
        grad_norms=tuple(float(norm) for norm in grad_norms)[-SHOWN_NORMS:],
        lr=rate,
        suggested_lr=suggested,
        why=why,
    )


def _take(parts: Iterable[MicroBatch]) -> list[Step]:
    """The first steps that weigh something, as far as memory goes."""
    kept: list[Step] = []
    step: list[MicroBatch] = []
    taken = 0
    for part in parts:
        num_bytes = _num_bytes(part)
        if part.step_weight > 0 and (not step or sum(map(_num_bytes, step)) + num_bytes <= MOST_BYTES):
            step.append(part)
        if not part.ends_step:
            continue
        weight = math.fsum(part.weight for part in step)
        if weight > 0:
            taken += sum(map(_num_bytes, step))
            kept.append([replace(part, step_weight=weight) for part in step])
        step = []
        if len(kept) >= MOST_STEPS or (len(kept) >= FEWEST_STEPS and taken >= MOST_BYTES) or taken >= 2 * MOST_BYTES:
            break
    return kept


def _num_bytes(part: MicroBatch) -> int:
    return part.batch.images.numel() * part.batch.images.element_size()


def _cross_entropy(spec: ExperimentSpec | None) -> PartObjective:
    """The plain objective of steps of one batch."""
    smoothing = spec.label_smoothing if spec else 0.0
    return lambda outputs, part: F.cross_entropy(outputs, part.batch.labels, label_smoothing=smoothing)


@dataclass(frozen=True)
class Training:
    """How the run trains: what is tried afterwards has its objective, its clipping and its frozen part."""

    build_network: Callable[[], nn.Module]
    spec: ExperimentSpec | None
    epoch: int
    objective: PartObjective
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def begin(self, state: Mapping[str, Tensor] | None, steps: Sequence[Step], lr: float | None) -> "_Trainee":
        """A network to train, from the given weights or from the start, with an optimizer at this rate."""
        network = self.build_network()
        if steps:
            network = network.to(steps[0][0].batch.images.device)
        if state is not None:
            network.load_state_dict(dict(state))
        network.train()
        if self.spec is None:
            return _Trainee(self, network, torch.optim.SGD(network.parameters(), lr=lr or 0.01, momentum=0.9))
        head = head_of(network)
        chosen = self.spec.optimizer if lr is None else self.spec.optimizer.model_copy(update={"lr": lr})
        optimizer = build_optimizer(chosen, network, head, self.spec.fine_tuning, implementation="foreach")
        Freezing(network, head, self.spec.fine_tuning).set_training_mode(self.epoch)
        return _Trainee(self, network, optimizer)


@dataclass(frozen=True)
class _Trainee:
    """A network that is trained step by step."""

    training: Training
    network: nn.Module
    optimizer: torch.optim.Optimizer

    def add_gradients(self, step: Step) -> float:
        """Add up the gradients of a step and return its loss; the first batch whose loss is not finite ends it."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in step:
            with self.training.autocast():
                loss = self.training.objective(self.network(part.batch.images), part)
            total += loss.item()
            if not math.isfinite(total):
                break
            loss.backward()  # type: ignore[no-untyped-call]
        return total

    def clip(self) -> float:
        """The gradient's norm, before it is scaled down to what the spec allows."""
        largest = self.training.spec.clip_grad_norm if self.training.spec else None
        return float(clip_grad_norm(list(self.network.parameters()), largest))

    def take(self, step: Step) -> float:
        """Take a step and return the loss before it. A loss that is not finite changes nothing."""
        loss = self.add_gradients(step)
        if math.isfinite(loss):
            self.clip()
            self.optimizer.step()
        return loss


def find_culprit(
    training: Training, state: Mapping[str, Tensor] | None, steps: Sequence[Step], lr: float | None
) -> Culprit | None:
    """Train on from the weights before the guilty step and name the first thing that is not finite."""
    trainee = training.begin(state, steps, lr)
    network = trainee.network
    if (broken := _broken_weight(network)) is not None:
        return broken
    watch = _Watch(network)
    replayed = itertools.islice(itertools.cycle(steps), REPLAYED_STEPS if steps else 0)
    began = time.perf_counter()
    try:
        for number, step in enumerate(replayed):
            watch.reset()
            if not math.isfinite(trainee.add_gradients(step)):
                return replace(watch.culprit("loss"), step=number)
            if not math.isfinite(trainee.clip()):
                return replace(_largest_gradient(network) or watch.culprit("gradient"), step=number)
            trainee.optimizer.step()
            if (broken := _broken_weight(network)) is not None:
                return replace(broken, step=number)
            if time.perf_counter() - began > REPLAY_SECONDS:
                break
    finally:
        watch.remove()
    return None


def _broken_weight(network: nn.Module) -> Culprit | None:
    """The first layer with a weight that is not finite. (Running statistics are spoilt by any bad forward pass.)"""
    for name, module in network.named_modules():
        if not all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters(recurse=False)):
            return Culprit("weight", name, type(module).__name__)
    return None


def _largest_gradient(network: nn.Module) -> Culprit | None:
    """The layer of the largest gradient, where each number is finite and the norm, a sum of their squares, is not."""
    sizes: dict[tuple[str, str], float] = {}
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            if parameter.grad is not None:
                size = float(parameter.grad.abs().max())
                if not math.isfinite(size):
                    return None
                sizes[name, type(module).__name__] = max(size, sizes.get((name, type(module).__name__), 0.0))
    return Culprit("gradient", *max(sizes, key=sizes.__getitem__)) if sizes else None


class _Watch:
    """Hooks that note the first layer, in the order of computation, whose output or gradient is not finite."""

    def __init__(self, network: nn.Module) -> None:
        self.first: dict[str, tuple[str, str]] = {}
        self.last: tuple[str, str] | None = None
        self._handles = [
            module.register_forward_hook(self._hook(name))
            for name, module in network.named_modules()
            if not any(True for _ in module.children())
        ]

    def reset(self) -> None:
        """Forget the step before."""
        self.first.clear()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def culprit(self, what: What) -> Culprit:
        """The layer that was first; the last layer when every layer's output was finite and the loss was not."""
        layer, kind = self.first.get(what) or self.last or (None, None)
        return Culprit(what, layer, kind)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            self.last = (name, type(module).__name__)
            if "loss" not in self.first and not bool(torch.isfinite(output).all()):
                self.first["loss"] = self.last
            if output.requires_grad:
                output.register_hook(lambda grad: self._see_gradient(name, module, grad))  # type: ignore[no-untyped-call]

        return after

    def _see_gradient(self, name: str, module: nn.Module, grad: Tensor) -> None:
        if "gradient" not in self.first and not bool(torch.isfinite(grad).all()):
            self.first["gradient"] = (name, type(module).__name__)


def find_working_rate(training: Training, steps: Sequence[Step], lr: float | None) -> tuple[float | None, str]:
    """A rate from a learning-rate test below the one that diverged, trained at for a while to prove it; and how."""
    if not steps:
        return None, "There were no batches to try rates on."
    high = lr if lr is not None else 1.0
    step = _begin(training, steps)
    images = sum(len(part.batch) for part in steps[0])
    plan = make_plan(60, images, time_step(lambda: step(high * 1e-6)), SWEEP_SECONDS)
    rates = np.geomspace(high * 1e-5, high, plan.num_rates)
    sweep = sweep_rates(step, rates, steps_a_rate=plan.steps_a_rate, seconds=SWEEP_SECONDS)
    found = suggest(sweep)
    rate = min(found.lr, high / 3) if found.lr is not None else high / 100
    unmoved: list[float] = []
    for _ in range(4):
        trial = _try_rate(_begin(training, steps), rate, len(steps))
        if trial.learned:
            why = found.why if found.lr == rate else f"{high / rate:.3g} times below the rate that diverged."
            return rate, f"{why} {trial}"
        if trial.finite:
            unmoved.append(rate)
        higher = trial.finite and min(unmoved) == rate and 3 * rate <= high / 3
        rate *= 3 if higher else 0.1
        if any(math.isclose(rate, tried) for tried in unmoved):
            break
    if unmoved:
        tried = " and ".join(f"{rate:.2g}" for rate in sorted(unmoved))
        return (
            None,
            f"No rate is advised: at {tried} training stayed finite, and the loss did not fall in the steps tried.",
        )
    return None, "Training was not finite, or got worse, at far smaller rates too: the cause is not the learning rate."


def _begin(training: Training, steps: Sequence[Step]) -> Callable[[float], float]:
    """Start training anew; the result trains one step at a rate and returns its loss."""
    trainee = training.begin(None, steps, 1.0)
    factors = [float(group["lr"]) for group in trainee.optimizer.param_groups]
    endless = itertools.cycle(steps)

    def step(rate: float) -> float:
        for group, factor in zip(trainee.optimizer.param_groups, factors, strict=True):
            group["lr"] = rate * factor
        return trainee.take(next(endless))

    return step


@dataclass(frozen=True)
class _Trial:
    """What training at a rate did: the losses before it, on the first batches, and those of its last steps."""

    before: Array
    after: Array
    num_steps: int
    finite: bool
    """Whether every loss was finite and none above twice the mean of those before."""

    @property
    def learned(self) -> bool:
        """Whether the loss fell, by an amount that matters and by more than batches differ."""
        if not self.finite:
            return False
        before, after = float(self.before.mean()), float(self.after.mean())
        doubt = math.sqrt(self.before.var() / len(self.before) + self.after.var() / len(self.after))
        return before - after > max(PROVEN_FALL * before, 2 * doubt)

    def __str__(self) -> str:
        before, after = float(self.before.mean()), float(self.after.mean())
        return f"Trained at for {self.num_steps} steps it took the loss from {before:.3g} to {after:.3g}."


def _try_rate(step: Callable[[float], float], rate: float, num_batches: int) -> _Trial:
    """Train at a rate until the loss has fallen, is not fit, or time is up.

    The losses before are measured on the same batches at a rate of 0.
    """
    count = min(num_batches, FEWEST_PROOF_STEPS)
    before = np.array([step(0.0) for _ in range(count)])
    most = 2 * float(before.mean())
    began = time.perf_counter()
    losses: list[float] = []
    while True:
        losses.append(step(rate))
        finite = math.isfinite(most) and losses[-1] <= most  # false for NaN too
        trial = _Trial(before, np.array(losses[-max(count, len(losses) // 4) :]), len(losses), finite)
        in_time = len(losses) < FEWEST_PROOF_STEPS or time.perf_counter() - began < PROOF_SECONDS
        asked = len(losses) % PROOF_STEPS == 0 or not in_time
        if not finite or (asked and (trial.learned or not in_time or len(losses) >= MOST_PROOF_STEPS)):
            return trial
