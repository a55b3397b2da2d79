"""What happened when a loss, gradient or weight stopped being finite, found by running the guilty batches again."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.metrics import finite
from models.networks.layers import head_of
from models.spec.experiment import ExperimentSpec
from worker.training.optimizers import build_optimizer
from worker.training.range_test import make_plan, suggest, sweep_rates, take_step, time_step
from worker.training.step import gradient_norm

What = Literal["loss", "gradient", "weight"]
Pair = tuple[Tensor, Tensor]

Array = NDArray[np.float64]
WORDS: dict[What, str] = {"loss": "the loss", "gradient": "the gradient", "weight": "a weight"}

MOST_BATCHES = 64
FEWEST_BATCHES = 4
MOST_BYTES = 64 * 2**20
"""Batches that are kept for the replay and the range test, and the memory that more than the fewest may take."""
REPLAYED_STEPS = 40
"""Steps after which a replay that stays finite is given up."""
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
class Divergence:
    """One divergence, explained as far as could be."""

    epoch: int
    """Counted from 1."""
    step: int
    """Counted from 1 within the epoch."""
    what: What
    """What stopped being finite first."""
    layer: str | None
    """The first layer whose output, gradient or weight did; None when the replay stayed finite."""
    layer_type: str | None
    grad_norms: tuple[float, ...]
    """The gradient's norm in the steps up to it, oldest first; non-finite values included."""
    lr: float | None
    """The learning rate of that step."""
    suggested_lr: float | None
    """A learning rate that works, from a range test run there and then; None when none did."""
    why: str
    """How that rate was chosen, or why none is advised."""
    lowered_to: float | None = None
    """The rate that training went on with (on_divergence: lower_lr); None when it stopped."""

    @property
    def what_happened(self) -> str:
        """What stopped being finite, where: the one wording for the run's reason, its notices and its verdict."""
        kind = f" ({self.layer_type})" if self.layer_type else ""
        first = f", first in layer {self.layer}{kind}" if self.layer else ""
        return f"{WORDS[self.what]} stopped being finite at step {self.step} of epoch {self.epoch}{first}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; non-finite norms are null."""
        body: dict[str, Any] = finite({**vars(self), "grad_norms": list(self.grad_norms)})
        return body


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
    batches: Iterable[Pair],
    step: int,
    epoch: int,
    grad_norms: Sequence[float],
    spec: ExperimentSpec | None,
    *,
    what: What = "loss",
    lr: float | None = None,
) -> Divergence:
    """Explain a divergence; takes some 15 s on two cores, most of it the range test.

    `build_network` makes the network as it started (seed it there, so that it is that network). `state` are the weights
    before the guilty step, None for the starting ones. `batches` are (inputs, targets) as the network takes them, on
    its device, the guilty one first; more of them make the range test more like the training. `step` and `epoch` count
    from 1. `what` is what the guard saw, used when the replay stays finite. `lr` is that step's rate, else the spec's.
    """
    pairs = _take(batches)
    rate = lr if lr is not None else spec.optimizer.lr if spec else None
    culprit = find_culprit(build_network, state, pairs, spec, rate)
    if culprit is None or (culprit.step > 0 and culprit.what != what):
        culprit = Culprit(what, None, None)  # what broke in a later step of the replay is not what the guard saw
    suggested, why = find_working_rate(build_network, pairs, spec, rate)
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


def _take(batches: Iterable[Pair]) -> list[Pair]:
    pairs: list[Pair] = []
    taken = 0
    for inputs, targets in batches:
        pairs.append((inputs, targets))
        taken += inputs.numel() * inputs.element_size()
        if len(pairs) >= MOST_BATCHES or (len(pairs) >= FEWEST_BATCHES and taken >= MOST_BYTES):
            break
    return pairs


def find_culprit(
    build_network: Callable[[], nn.Module],
    state: Mapping[str, Tensor] | None,
    pairs: Sequence[Pair],
    spec: ExperimentSpec | None,
    lr: float | None,
) -> Culprit | None:
    """Train on from the weights before the guilty step and name the first thing that is not finite."""
    network = _built(build_network, pairs)
    if state is not None:
        network.load_state_dict(dict(state))
    if (broken := _broken_weight(network)) is not None:
        return broken
    optimizer = _optimizer(network, spec, lr)
    watch = _Watch(network)
    replayed = itertools.islice(itertools.cycle(pairs), REPLAYED_STEPS if pairs else 0)
    try:
        for step, (inputs, targets) in enumerate(replayed):
            watch.reset()
            loss = _loss(network, inputs, targets, spec)
            if not math.isfinite(loss.item()):
                return replace(watch.culprit("loss"), step=step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = gradient_norm(list(network.parameters()), spec.clip_grad_norm if spec else None)
            if not math.isfinite(norm):
                return replace(_largest_gradient(network) or watch.culprit("gradient"), step=step)
            optimizer.step()
            if (broken := _broken_weight(network)) is not None:
                return replace(broken, step=step)
    finally:
        watch.remove()
    return None


def _built(build_network: Callable[[], nn.Module], pairs: Sequence[Pair]) -> nn.Module:
    network = build_network()
    if pairs:
        network = network.to(pairs[0][0].device)
    return network.train()


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


def find_working_rate(
    build_network: Callable[[], nn.Module], pairs: Sequence[Pair], spec: ExperimentSpec | None, lr: float | None
) -> tuple[float | None, str]:
    """A rate from a range test below the one that diverged, then trained at for a while to prove it; and how."""
    if not pairs:
        return None, "There were no batches to try rates on."
    high = lr if lr is not None else 1.0
    begin = _trainer(build_network, pairs, spec)
    step = begin()
    plan = make_plan(60, len(pairs[0][0]), time_step(lambda: step(high * 1e-6)), SWEEP_SECONDS)
    rates = np.geomspace(high * 1e-5, high, plan.num_rates)
    sweep = sweep_rates(step, rates, steps_a_rate=plan.steps_a_rate, seconds=SWEEP_SECONDS)
    found = suggest(sweep)
    rate = min(found.lr, high / 3) if found.lr is not None else high / 100
    unmoved: list[float] = []
    for _ in range(4):
        trial = _try_rate(begin(), rate, len(pairs))
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


def _trainer(
    build_network: Callable[[], nn.Module], pairs: Sequence[Pair], spec: ExperimentSpec | None
) -> Callable[[], Callable[[float], float]]:
    """A function that starts training anew and returns what trains one step at a rate."""

    def begin() -> Callable[[float], float]:
        network = _built(build_network, pairs)
        optimizer = _optimizer(network, spec, 1.0)
        factors = [float(group["lr"]) for group in optimizer.param_groups]
        endless = itertools.cycle(pairs)
        clip = spec.clip_grad_norm if spec else None

        def step(rate: float) -> float:
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                group["lr"] = rate * factor
            inputs, targets = next(endless)
            return take_step(optimizer, _loss(network, inputs, targets, spec), list(network.parameters()), clip)

        return step

    return begin


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
        finite = losses[-1] <= most  # false for NaN too
        trial = _Trial(before, np.array(losses[-max(count, len(losses) // 4) :]), len(losses), finite)
        in_time = len(losses) < FEWEST_PROOF_STEPS or time.perf_counter() - began < PROOF_SECONDS
        asked = len(losses) % PROOF_STEPS == 0 or not in_time
        if not finite or (asked and (trial.learned or not in_time or len(losses) >= MOST_PROOF_STEPS)):
            return trial


def _optimizer(network: nn.Module, spec: ExperimentSpec | None, lr: float | None) -> torch.optim.Optimizer:
    """The spec's optimizer at another rate; plain SGD with momentum without a spec."""
    if spec is None:
        return torch.optim.SGD(network.parameters(), lr=lr or 0.01, momentum=0.9)
    chosen = spec.optimizer if lr is None else spec.optimizer.model_copy(update={"lr": lr})
    return build_optimizer(chosen, network, head_of(network), spec.fine_tuning, implementation="foreach")


def _loss(network: nn.Module, inputs: Tensor, targets: Tensor, spec: ExperimentSpec | None) -> Tensor:
    return F.cross_entropy(network(inputs).float(), targets, label_smoothing=spec.label_smoothing if spec else 0.0)
