"""A network's layers and the memory and disk space that training takes, found without allocating it.

Networks that are too large by arithmetic alone are refused first, in about a millisecond; others are then built on
torch's meta device, where tensors have shapes and no content.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.data.info import DatasetInfo
from models.errors import SpecError
from models.networks import checks
from models.networks.freezing import check_freezing
from models.networks.inputs import preprocessing_for
from models.networks.inspection import inspect_network
from models.networks.layer import Layer
from models.networks.memory import disk_use
from models.spec.advice import without_nearest
from models.spec.changes import with_changes
from models.spec.experiment import ExperimentSpec
from models.spec.model import ZooSpec
from models.spec.torchvision_names import ZooName


@dataclass(frozen=True)
class NetworkSummary:
    """A network's layers and memory. Bytes are those of 32-bit training.

    `layers` has an entry a layer: {"name", "type", "output_shape", "kernel_shape" or null, "parameters"}, shapes
    without the batch. `activation_bytes` is what the backward pass needs of a whole batch, `weight_bytes` the
    parameters and buffers, `training_bytes` everything that training holds at once: weights, gradients, optimizer,
    activations, kept kernels; beside them the process itself takes some 300 MB. `disk_bytes` is what stays on the disk
    when it has been trained, and `disk` says of what.
    """

    layers: list[Layer]
    num_parameters: int
    macs_per_image: int
    activation_bytes: int
    weight_bytes: int
    training_bytes: int
    disk_bytes: int
    disk: dict[str, int]


def describe(spec: ExperimentSpec, info: DatasetInfo) -> NetworkSummary:
    """Describe the network of a spec, or refuse it.

    Raises SpecError that names the field and the nearest valid value when the network cannot be built for its input,
    cannot be trained at this batch size, or needs more memory than this machine has. A nearest value that would be
    refused in its turn is left out.
    """
    try:
        return _describe(spec, info)
    except SpecError as error:
        entries = [
            entry
            if "nearest" not in entry or can_be_run(spec, info, {entry["field"]: entry["nearest"]})
            else without_nearest(entry)
            for entry in error.errors
        ]
        raise SpecError(entries, fix=error.fix) from None


def can_be_run(spec: ExperimentSpec, info: DatasetInfo, changes: Mapping[str, Any]) -> bool:
    """Whether the spec with these fields changed (`models.spec.changes`) is valid and can be trained here."""
    try:
        _describe(with_changes(spec, changes), info)
    except SpecError:
        return False
    return True


def _describe(spec: ExperimentSpec, info: DatasetInfo) -> NetworkSummary:
    preprocessing = preprocessing_for(spec, info)
    channels, size = preprocessing.channels, preprocessing.input_size
    checks.check_fields(spec, info)
    checks.check_split(spec, info)
    checks.check_sizes(spec, info, channels=channels, size=size)
    checks.check_estimated_memory(spec, info, channels=channels, size=size)
    inspection = inspect_network(spec.model, num_classes=info.num_classes, in_channels=channels, size=size)
    check_freezing(spec, inspection.parameters, inspection.head)
    checks.check_norms(spec, inspection.smallest_norm_values)
    checks.check_memory(spec, inspection.cost, inspection.smallest_norm_values)
    disk = disk_use(spec, info, inspection.weight_bytes, inspection.cost.first_kernels_bytes)
    return NetworkSummary(
        layers=[layer.copy() for layer in inspection.layers],
        num_parameters=inspection.cost.num_parameters,
        macs_per_image=inspection.macs,
        activation_bytes=inspection.cost.activation_bytes * spec.batch_size,
        weight_bytes=inspection.weight_bytes,
        training_bytes=checks.training_bytes_of(spec, inspection.cost),
        disk_bytes=disk.files + disk.database,
        disk=asdict(disk),
    )


def warm_up() -> None:
    """Load torch's shape functions for the meta device, and torchvision, which takes two seconds once a process.

    A server calls this from a thread when it starts, so that the first torchvision network is described quickly too.
    """
    inspect_network(ZooSpec(name=ZooName.SQUEEZENET1_1), num_classes=10, in_channels=3, size=64)
