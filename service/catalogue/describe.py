"""Description of a spec's network before training.

Importing this module imports torch, which takes two seconds: import it late or in a thread.
"""

from models.data.info import DatasetInfo
from models.networks import describe as networks
from models.networks.architectures import architectures, libraries
from models.networks.findings import spec_warnings
from models.networks.starting import check_start
from models.spec.experiment import ExperimentSpec
from service.catalogue.accepted import Accepted, NetworkSize

__all__ = ["architectures", "check_start", "describe_spec", "libraries", "warm_up"]

warm_up = networks.warm_up


def describe_spec(spec: ExperimentSpec, info: DatasetInfo) -> Accepted:
    """Check a spec's network and describe it.

    Raises SpecError, with the field and the nearest valid value, for a network that cannot be built or trained.
    """
    summary = networks.describe(spec, info)
    size: NetworkSize = {
        "num_parameters": summary.num_parameters,
        "macs_per_image": summary.macs_per_image,
        "activation_bytes": summary.activation_bytes,
        "weight_bytes": summary.weight_bytes,
        "training_bytes": summary.training_bytes,
        "disk_bytes": summary.disk_bytes,
        "disk": summary.disk,
    }
    return Accepted(spec, info, summary.layers, spec_warnings(spec, info), size)
