"""What is known of a spec's network before it is trained, in the shapes that routes and the store want.

Importing this module takes torch's two seconds; import it late or beside.
"""

from dataclasses import asdict
from typing import Any

from models.data.info import DatasetInfo
from models.networks import describe as networks
from models.networks.architectures import architectures
from models.networks.findings import spec_warnings
from models.spec.experiment import ExperimentSpec

__all__ = ["architectures", "describe_spec", "warm_up"]

warm_up = networks.warm_up


def describe_spec(
    spec: ExperimentSpec, info: DatasetInfo
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """A spec's layers, its warnings, and its size in numbers (parameters, operations, bytes).

    Raises SpecError, naming the field and the nearest valid value, for a network that cannot be built or trained.
    """
    summary = asdict(networks.describe(spec, info))
    return summary.pop("layers"), spec_warnings(spec, info), summary
