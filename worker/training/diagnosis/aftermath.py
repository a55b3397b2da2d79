"""Restores finite weights after a divergence, and explains it."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.spec.experiment import ExperimentSpec
from models.verdict.divergence import Divergence
from worker.training.batches.accumulation import micro_batches
from worker.training.batches.batch import MicroBatch
from worker.training.batches.loader import EpochBatches
from worker.training.build import Data, build_fresh_network, input_size_in
from worker.training.diagnosis.divergence import explain
from worker.training.guard import Diverged
from worker.training.state import TrainingState


def restore_finite_weights(state: TrainingState, last_saved: Callable[[], dict[str, Any] | None]) -> None:
    """Replace everything in the network that is not finite.

    The guard stops a step before it changes weights, but its forward pass may have made batch normalisation's running
    statistics infinite: they are reset to those of the epoch's start. Weights that are not finite are replaced by the
    last checkpoint's, or the initial ones.
    """
    if not all(map(_is_finite, state.network.parameters())):
        saved = last_saved()
        state.network.load_state_dict(state.initial_weights if saved is None else saved["network"])
    if not all(map(_is_finite, state.network.buffers())):
        state.restore_buffers()


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def explain_divergence(
    diverged: Diverged,
    spec: ExperimentSpec,
    data: Data,
    batches: EpochBatches,
    state: TrainingState,
    cache_dir: Path | None,
    *,
    lowered_to: float | None,
) -> Divergence:
    """Run the failing step and those after it again, from the weights before it, and find a rate that works."""

    def build_network() -> nn.Module:
        return build_fresh_network(spec, data, cache_dir)

    def failing_first() -> Iterator[MicroBatch]:
        """The batches from the failing step on, into the next epochs."""
        first_step = diverged.step
        for epoch in itertools.count(state.epoch):
            size = input_size_in(spec, epoch, data.input_format.size)
            yield from micro_batches(batches, state.criterion, epoch, size, first_step, spec.accumulate_batches)
            first_step = 0

    found = explain(
        build_network,
        state.network.state_dict(),
        failing_first(),
        diverged.step + 1,
        diverged.epoch,
        [float(norm) for norm in state.finite_guard.grad_norms],
        spec,
        what=diverged.what,
        lr=state.schedule.lr_at(state.total_steps),
        criterion=state.criterion.micro_batch_loss,
        autocast=state.mixed_precision.autocast,
    )
    return replace(found, lowered_to=lowered_to)
