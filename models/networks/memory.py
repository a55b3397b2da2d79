"""Estimates the memory and disk space that training a network takes, and reads this machine's memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from models.data.info import DatasetInfo
from models.data.splits import split_counts
from models.evaluation.outputs import stored_bytes
from models.networks.cost import FLOAT_BYTES
from models.networks.epoch_budget import epochs_bytes
from models.networks.kernel_budget import history_bytes
from models.networks.layer import Layer
from models.spec.experiment import ExperimentSpec
from models.spec.training import AdamSpec, AdamWSpec, RmspropSpec, SgdSpec

USABLE = 0.9  # of the machine's memory: the system, the service and the images need the rest
KEPT_CHECKPOINTS = 2
EPOCH_BYTES = 500
"""Bytes of an epoch's metrics and their event in SQLite, measured; in a checkpoint, less than half."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_bytes() -> int:
    """The memory of this machine, or of the container that this process runs in if that has a limit."""
    total = psutil.virtual_memory().total
    try:
        return min(total, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def usable_bytes() -> int:
    """The bytes of memory that one training may use."""
    return int(machine_bytes() * USABLE)


def training_bytes(
    spec: ExperimentSpec, weights: int, activations: int, largest_activation: int, first_kernels: int
) -> int:
    """Bytes held at once while training: `activations` and `largest_activation` are those of one image.

    Weights are held as they are and as they were at the start, the optimizer keeps up to two more copies, averaged
    weights are one more, and there are the kept kernels. Beside them stand, in a step, gradients and activations: on
    the way back those of a layer's input and output beside everything that the forward pass kept; and at the end of an
    epoch the checkpoint, or the file of kernels, as it is put together.
    """
    kernels = history_bytes(first_kernels, spec.epochs)
    held = weights * (2 + _optimizer_copies(spec) + (spec.ema_decay is not None)) + kernels
    step = weights + (activations + 2 * largest_activation) * spec.batch_size
    saving = max(checkpoint_bytes(spec, weights, first_kernels), 2 * kernels)
    return held + max(step, saving)


@dataclass(frozen=True)
class DiskUse:
    """Disk space of a trained experiment in bytes. While files are replaced, one more checkpoint exists briefly."""

    checkpoints: int
    weights: int
    epoch_weights: int
    kernels: int
    outputs: int
    database: int

    @property
    def files(self) -> int:
        """Bytes of all artifacts."""
        return self.checkpoints + self.weights + self.epoch_weights + self.kernels + self.outputs


def disk_use(spec: ExperimentSpec, info: DatasetInfo, weights: int, first_kernels: int) -> DiskUse:
    """Two checkpoints, the best and the last weights, those of the kept epochs, the kept kernels, the outputs on the
    splits that are measured at the end, and the rows of the database.
    """
    return DiskUse(
        checkpoints=KEPT_CHECKPOINTS * checkpoint_bytes(spec, weights, first_kernels),
        weights=2 * weights,
        epoch_weights=epochs_bytes(weights, spec.epochs),
        kernels=history_bytes(first_kernels, spec.epochs),
        outputs=_outputs_bytes(spec, info),
        database=spec.epochs * EPOCH_BYTES,
    )


def _outputs_bytes(spec: ExperimentSpec, info: DatasetInfo) -> int:
    _, held_out = split_counts(spec.dataset, info)
    validation = min(held_out, spec.dataset.val_limit or info.num_train)
    splits = [validation, info.num_test] if spec.dataset.evaluate_test else [validation]
    return sum(stored_bytes(num_images, info.num_classes) for num_images in splits)


def disk_use_of(spec: ExperimentSpec, info: DatasetInfo, layers: Sequence[Layer]) -> DiskUse:
    """The same from a network's layers as they are stored with an experiment."""
    weights = sum(layer["parameters"] for layer in layers) * FLOAT_BYTES
    kernels = next((math.prod(layer["kernel_shape"]) for layer in layers if layer["kernel_shape"]), 0)
    return disk_use(spec, info, weights, kernels * FLOAT_BYTES)


def checkpoint_bytes(spec: ExperimentSpec, weights: int, first_kernels: int) -> int:
    """Bytes of a checkpoint: weights, the optimizer's state, averaged weights, kept kernels, the history."""
    copies = 1 + _optimizer_copies(spec) + (spec.ema_decay is not None)
    return weights * copies + history_bytes(first_kernels, spec.epochs) + spec.epochs * EPOCH_BYTES // 2


def _optimizer_copies(spec: ExperimentSpec) -> int:
    match spec.optimizer:
        case SgdSpec(momentum=momentum):
            return int(momentum > 0)
        case AdamSpec() | AdamWSpec():
            return 2
        case RmspropSpec(momentum=momentum):
            return 1 + int(momentum > 0)
