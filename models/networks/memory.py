"""How much memory training a network takes, and how much this machine has."""

from pathlib import Path

import psutil

from models.spec.experiment import ExperimentSpec
from models.spec.training import AdamSpec, AdamWSpec, RmspropSpec, SgdSpec

USABLE = 0.9  # of the machine's memory: the system, the service and the images need the rest
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_bytes() -> int:
    """The memory of this machine, or of the container that this process runs in if that has a limit."""
    total = psutil.virtual_memory().total
    try:
        return min(total, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def usable_bytes() -> int:
    """What one training may take."""
    return int(machine_bytes() * USABLE)


def training_bytes(spec: ExperimentSpec, weights: int, activations: int, largest_activation: int) -> int:
    """Bytes held at once while training: `activations` and `largest_activation` are those of one image.

    Weights and gradients are held once each, the optimizer keeps up to two more copies, averaged weights are one more.
    On the way back the gradients of a layer's input and output stand beside everything the forward pass kept.
    """
    copies = 2 + _optimizer_copies(spec) + (spec.ema_decay is not None)
    return weights * copies + (activations + 2 * largest_activation) * spec.batch_size


def _optimizer_copies(spec: ExperimentSpec) -> int:
    match spec.optimizer:
        case SgdSpec(momentum=momentum):
            return int(momentum > 0)
        case AdamSpec() | AdamWSpec():
            return 2
        case RmspropSpec(momentum=momentum):
            return 1 + int(momentum > 0)
