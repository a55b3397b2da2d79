"""Description of a spec's network before training, as plain data for routes and the store.

Importing this module imports torch, which takes two seconds: import it late or in a thread.
"""

from dataclasses import asdict
from typing import Any

from models.data.info import DatasetInfo
from models.findings import FindingJson
from models.networks import describe as networks
from models.networks.architectures import architectures
from models.networks.findings import spec_warnings
from models.networks.layer import Layer
from models.spec.experiment import ExperimentSpec

__all__ = ["architectures", "describe_spec", "warm_up"]

warm_up = networks.warm_up


def describe_spec(spec: ExperimentSpec, info: DatasetInfo) -> tuple[list[Layer], list[FindingJson], dict[str, Any]]:
    """Return a spec's layers, its warnings, and its size (parameters, operations, bytes).

    Raises SpecError, with the field and the nearest valid value, for a network that cannot be built or trained.
    """
    summary = asdict(networks.describe(spec, info))
    return summary.pop("layers"), spec_warnings(spec, info), summary
