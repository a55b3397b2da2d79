"""The datasets that a spec can name, and what is known about each before it has been fetched."""

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from models.errors import SpecError


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset holds. `mean` and `std` are those of the training images, per channel, with pixels from 0 to 1."""

    name: str
    title: str
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    size: int
    num_train: int
    num_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str

    def as_json(self) -> dict[str, Any]:
        """The entry as GET /datasets shows it."""
        return asdict(self)


CIFAR10 = DatasetInfo(
    name="cifar10",
    title="CIFAR-10",
    num_classes=10,
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    channels=3,
    size=32,
    num_train=50_000,
    num_test=10_000,
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(0.24703223, 0.24348513, 0.26158784),
    source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    licence="no licence stated; free for research, cite the technical report",
)

FASHION_MNIST = DatasetInfo(
    name="fashion-mnist",
    title="Fashion-MNIST",
    num_classes=10,
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    channels=1,
    size=28,
    num_train=60_000,
    num_test=10_000,
    mean=(0.28604060,),
    std=(0.35302424,),
    source="Xiao, Rasul and Vollgraf 2017, Fashion-MNIST",
    licence="MIT",
)

_CATALOGUE = {info.name: info for info in (CIFAR10, FASHION_MNIST)}


def list_datasets() -> list[DatasetInfo]:
    """Every dataset that can be named in a spec."""
    return list(_CATALOGUE.values())


def get_dataset(name: str) -> DatasetInfo:
    """The catalogue's entry, or SpecError that names `dataset.name` and the nearest known name."""
    if name in _CATALOGUE:
        return _CATALOGUE[name]
    nearest = difflib.get_close_matches(name, _CATALOGUE, n=1, cutoff=0.4)
    error: dict[str, Any] = {
        "field": "dataset.name",
        "message": f"there is no dataset {name[:100]!r}",
        "value": name[:100],
        "nearest": nearest[0] if nearest else CIFAR10.name,
        "choices": list(_CATALOGUE),
    }
    raise SpecError([error], fix="GET /api/v1/datasets lists what can be named")
