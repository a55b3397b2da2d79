"""A valid spec with the description of its network, before training."""

from dataclasses import dataclass
from typing import TypedDict

from models.data.info import DatasetInfo
from models.findings import FindingJson
from models.networks.layer import Layer
from models.spec.experiment import ExperimentSpec


class NetworkSize(TypedDict):
    """How large a network is and what training takes: models.networks.describe says what each figure counts."""

    num_parameters: int
    macs_per_image: int
    activation_bytes: int
    weight_bytes: int
    training_bytes: int
    disk_bytes: int
    disk: dict[str, int]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A valid spec with its layers, warnings and size."""

    spec: ExperimentSpec
    info: DatasetInfo
    """What it trains on."""
    layers: list[Layer]
    warnings: list[FindingJson]
    size: NetworkSize
