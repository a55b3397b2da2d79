"""Repeats training from the weights before a step to find the first layer whose values are not finite."""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.networks.layers import head_of
from models.spec.experiment import ExperimentSpec
from models.verdict.divergence import What
from worker.training.batches.batch import MicroBatch
from worker.training.optimizers import Freezing, build_optimizer
from worker.training.step import clip_grad_norm

Step = Sequence[MicroBatch]
"""The micro-batches whose gradients make one step."""
MicroBatchLoss = Callable[[Tensor, MicroBatch], Tensor]
"""Maps the logits of a micro-batch to its part of the loss of its step."""

REPLAYED_STEPS = 40
REPLAY_SECONDS = 20.0
"""Steps, and seconds, after which a replay that stays finite ends."""


@dataclass(frozen=True)
class NonFinite:
    """What stopped being finite, and the first layer in which it did."""

    what: What
    layer: str | None
    layer_type: str | None
    step: int = 0
    """Of the replay, counted from 0."""


@dataclass(frozen=True)
class Training:
    """How the run trains: replays and trials use its criterion, its clipping and its frozen part."""

    build_network: Callable[[], nn.Module]
    spec: ExperimentSpec
    epoch: int
    criterion: MicroBatchLoss
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def begin(self, state: Mapping[str, Tensor] | None, steps: Sequence[Step], lr: float) -> "Replica":
        """A network to train, from the given weights or from the start, with an optimizer at this rate."""
        network = self.build_network()
        if steps:
            network = network.to(steps[0][0].batch.images.device)
        if state is not None:
            network.load_state_dict(dict(state))
        network.train()
        head = head_of(network)
        chosen = self.spec.optimizer.model_copy(update={"lr": lr})
        freezing = Freezing(network, head, self.spec.fine_tuning)
        optimizer = build_optimizer(chosen, network, head, self.spec.fine_tuning, implementation="foreach")
        freezing.set_training_mode(self.epoch)
        return Replica(self, network, optimizer)


@dataclass(frozen=True)
class Replica:
    """A copy of the run's network, trained step by step."""

    training: Training
    network: nn.Module
    optimizer: torch.optim.Optimizer

    def add_gradients(self, step: Step) -> float:
        """Add up the gradients of a step and return its loss; the first batch whose loss is not finite ends it."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for micro_batch in step:
            with self.training.autocast():
                loss = self.training.criterion(self.network(micro_batch.batch.images), micro_batch)
            total += loss.item()
            if not math.isfinite(total):
                break
            loss.backward()  # type: ignore[no-untyped-call]
        return total

    def clip(self) -> float:
        """The gradient's norm, before it is scaled down to what the spec allows."""
        return float(clip_grad_norm(list(self.network.parameters()), self.training.spec.clip_grad_norm))

    def take(self, step: Step) -> float:
        """Do one step and return the loss before it. A loss that is not finite changes nothing."""
        loss = self.add_gradients(step)
        if math.isfinite(loss):
            self.clip()
            self.optimizer.step()
        return loss


def find_non_finite(
    training: Training, state: Mapping[str, Tensor] | None, steps: Sequence[Step], lr: float
) -> NonFinite | None:
    """Train on from the weights before the failing step and name the first thing that is not finite."""
    replica = training.begin(state, steps, lr)
    network = replica.network
    if (broken := _broken_weight(network)) is not None:
        return broken
    watch = _LayerHooks(network)
    replayed = itertools.islice(itertools.cycle(steps), REPLAYED_STEPS if steps else 0)
    began = time.perf_counter()
    try:
        for number, step in enumerate(replayed):
            watch.reset()
            if not math.isfinite(replica.add_gradients(step)):
                return replace(watch.found("loss"), step=number)
            if not math.isfinite(replica.clip()):
                return replace(_largest_gradient(network) or watch.found("gradient"), step=number)
            replica.optimizer.step()
            if (broken := _broken_weight(network)) is not None:
                return replace(broken, step=number)
            if time.perf_counter() - began > REPLAY_SECONDS:
                break
    finally:
        watch.remove()
    return None


def _broken_weight(network: nn.Module) -> NonFinite | None:
    """The first layer with a weight that is not finite. (Any bad forward pass makes running statistics infinite.)"""
    for name, module in network.named_modules():
        if not all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters(recurse=False)):
            return NonFinite("weight", name, type(module).__name__)
    return None


def _largest_gradient(network: nn.Module) -> NonFinite | None:
    """The layer of the largest gradient, where each number is finite and the norm, a sum of their squares, is not."""
    sizes: dict[tuple[str, str], float] = {}
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            if parameter.grad is not None:
                size = float(parameter.grad.abs().max())
                if not math.isfinite(size):
                    return None
                sizes[name, type(module).__name__] = max(size, sizes.get((name, type(module).__name__), 0.0))
    return NonFinite("gradient", *max(sizes, key=sizes.__getitem__)) if sizes else None


class _LayerHooks:
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
        """Clear the record of the last step."""
        self.first.clear()

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def found(self, what: What) -> NonFinite:
        """The first such layer; the last layer when every layer's output was finite and the loss was not."""
        layer, kind = self.first.get(what) or self.last or (None, None)
        return NonFinite(what, layer, kind)

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
