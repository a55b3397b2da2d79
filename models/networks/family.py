"""A family of networks: the interface that every family implements, and how its module is found.

A family is two halves. Its spec is a class in models.spec.model, registered there in FAMILIES under the names that a
spec's `model` may have; it needs no torch. Its module, which the spec names, has an instance of a subclass of Family
as FAMILY. What most networks share is the default here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from models.data.info import DatasetInfo
from models.errors import SpecError
from models.networks import tracing
from models.networks.architecture import Architecture
from models.networks.cost import Cost
from models.networks.warning import Warned
from models.spec.experiment import ExperimentSpec
from models.spec.model import FAMILIES, NetworkSpec

Model = TypeVar("Model", bound=NetworkSpec)
Rates = tuple[float, float]

# The rates between which networks are trained in practice, by optimizer. SGD's are with momentum 0.9, whose steps add
# up to ten times the rate; without it, ten times as much is normal.
ADAPTIVE_RATES = (1e-6, 1e-2)
SGD_RATES = (1e-4, 0.3)
SGD_NORM_RATES = (1e-4, 2.0)  # batch normalisation allows more

SMALLEST_INPUT = 8
"""The least that model.input_size may be."""


@dataclass(frozen=True)
class Normalisation:
    """The channels of a network's input, and the mean and standard deviation of each (pixels from 0 to 1)."""

    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Family(ABC, Generic[Model]):
    """The interface of a family: how to build, check and initialise the networks of one spec class.

    A network needs a convolution and a head.
    """

    fixed_size = False
    """Whether every network of the family fits the input size that it was built for and no other."""
    is_large = False
    """Whether a step keeps any number of cores busy. Operations are not counted then, which takes seconds."""

    @abstractmethod
    def build(self, model: Model, *, num_classes: int, in_channels: int, size: int, cache_dir: Path) -> nn.Module:
        """Build the network: see models.networks.build.build_network."""

    @abstractmethod
    def architectures(self) -> list[Architecture]:
        """The family's entries of GET /architectures."""

    def initialise(self, network: nn.Module, images: Callable[[], Tensor]) -> None:
        """Initialise layers from the training images; see models.networks.build.initialise."""
        return

    def normalisation(self, model: Model, info: DatasetInfo) -> Normalisation:
        """How pixels are scaled: by default to mean 0 and deviation 1 over the dataset's training images."""
        return Normalisation(info.channels, info.mean, info.std)

    def minimum_size(self, model: Model) -> int:
        """The smallest input that the network can be built for."""
        return SMALLEST_INPUT

    def useful_size(self, model: Model) -> int:
        """The side of the input below which the network loses much of its accuracy."""
        return self.minimum_size(model)

    def input_size(self, model: Model, info: DatasetInfo) -> int:
        """The side that images are resized to: what the spec says, or the dataset's own."""
        return model.input_size or info.size

    def fits_one_size(self, model: Model) -> bool:
        """Whether this network fits the input size that it was built for and no other."""
        return self.fixed_size

    def check_size(self, model: Model, *, num_classes: int, in_channels: int, size: int) -> None:
        """Raise SpecError, with the field and the nearest value that would do, where the input is too small."""
        least = self.minimum_size(model)
        if size < least:
            text = f"{model.name} halves its input too often for {size} pixels; it needs {least}"
            raise SpecError(
                [{"field": "model.input_size", "message": text, "value": model.input_size, "nearest": least}]
            )

    def estimate_cost(self, model: Model, *, num_classes: int, in_channels: int, size: int) -> Cost | None:
        """The cost by arithmetic, for networks whose spec can ask for any size; None to have it inspected at once.

        Raises SpecError for an input that is too small.
        """
        return None

    def adjustable_sizes(
        self, model: Model, *, num_classes: int, in_channels: int, size: int, batch_size: int
    ) -> list[tuple[str, int]]:
        """The fields of `model` that reduce a network's cost, each with its least value."""
        return []

    def trace(self, network: nn.Module, in_channels: int, size: int, record: tracing.Record) -> None:
        """Note the layers of a network on the meta device and what it keeps of an image."""
        tracing.run(network, in_channels, size, record)

    def is_normed(self, model: Model) -> bool:
        """Whether the network has batch normalisation."""
        return False

    def usual_sgd_rates(self, model: Model) -> Rates:
        """The lowest and highest learning rate with which it is trained in practice, by SGD with momentum 0.9."""
        return SGD_NORM_RATES if self.is_normed(model) else SGD_RATES

    def usual_adaptive_rates(self, model: Model) -> Rates:
        """The same by Adam and its like."""
        return ADAPTIVE_RATES

    def warnings(self, spec: ExperimentSpec, info: DatasetInfo) -> Iterable[Warned]:
        """Warnings about a valid spec that only this family has."""
        return ()


def family_of(model: NetworkSpec) -> Family[Any]:
    """The family of a network's spec. Its module is imported when it is first asked for."""
    return _family(type(model))


def families() -> list[Family[Any]]:
    """Every family once, in the order in which they are registered."""
    return [_family(cls) for cls in dict.fromkeys(FAMILIES.values())]


def _family(cls: type[NetworkSpec]) -> Family[Any]:
    family: Family[Any] = import_module(cls.network_module).FAMILY
    return family
