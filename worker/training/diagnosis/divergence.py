"""Explains why a loss, gradient or weight stopped being finite, by training the failing step again."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from models.spec.experiment import ExperimentSpec
from models.verdict.divergence import Divergence, What
from worker.training.batches.batch import MicroBatch
from worker.training.diagnosis.replay import MicroBatchLoss, NonFinite, Step, Training, find_non_finite
from worker.training.diagnosis.working_rate import find_working_rate

MOST_STEPS = 64
FEWEST_STEPS = 4
MOST_BYTES = 64 * 2**20
"""Steps that are kept for the replay and the learning-rate test, and the memory that more than the fewest may take.

Of a single step as many accumulated batches are kept as this much memory holds.
"""
SHOWN_NORMS = 50


def explain(
    build_network: Callable[[], nn.Module],
    state: Mapping[str, Tensor] | None,
    micro_batches: Iterable[MicroBatch],
    step: int,
    epoch: int,
    grad_norms: Sequence[float],
    spec: ExperimentSpec,
    *,
    what: What = "loss",
    lr: float | None = None,
    criterion: MicroBatchLoss,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Divergence:
    """Explain a divergence; takes some 15 s on two cores, most of it the learning-rate test.

    `build_network` makes the network as it started (seed it there, so that it is that network). `state` are the weights
    before the failing step, None for the starting ones. `micro_batches` are those of one step after the other, on the
    network's device, the failing step first; more of them make the learning-rate test more like the training. `step`
    and `epoch` count from 1; what is frozen in that epoch stays frozen. `what` is what the guard saw, used when the
    replay stays finite. `lr` is that step's rate, else the spec's. `criterion` and `autocast` are the run's own.
    """
    kept = _take(micro_batches)
    rate = spec.optimizer.lr if lr is None else lr
    run = Training(build_network, spec, epoch, criterion, autocast)
    found = find_non_finite(run, state, kept, rate)
    if found is None or (found.step > 0 and found.what != what):
        found = NonFinite(what, None, None)  # what broke in a later step of the replay is not what the guard saw
    suggested, why = find_working_rate(run, kept, rate)
    return Divergence(
        epoch=epoch,
        step=step,
        what=found.what,
        layer=found.layer,
        layer_type=found.layer_type,
        grad_norms=tuple(float(norm) for norm in grad_norms)[-SHOWN_NORMS:],
        lr=rate,
        suggested_lr=suggested,
        why=why,
    )


def _take(micro_batches: Iterable[MicroBatch]) -> list[Step]:
    """The first steps with a weight above 0, as many as memory allows."""
    kept: list[Step] = []
    step: list[MicroBatch] = []
    taken = 0
    for micro_batch in micro_batches:
        num_bytes = _num_bytes(micro_batch)
        if micro_batch.step_weight > 0 and (not step or sum(map(_num_bytes, step)) + num_bytes <= MOST_BYTES):
            step.append(micro_batch)
        if not micro_batch.ends_step:
            continue
        weight = math.fsum(micro_batch.weight for micro_batch in step)
        if weight > 0:
            taken += sum(map(_num_bytes, step))
            kept.append([replace(micro_batch, step_weight=weight) for micro_batch in step])
        step = []
        if len(kept) >= MOST_STEPS or (len(kept) >= FEWEST_STEPS and taken >= MOST_BYTES) or taken >= 2 * MOST_BYTES:
            break
    return kept


def _num_bytes(micro_batch: MicroBatch) -> int:
    return micro_batch.batch.images.numel() * micro_batch.batch.images.element_size()
