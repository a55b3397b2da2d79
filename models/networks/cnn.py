"""The declarative CNN: blocks of convolutions and a head of linear layers, as the spec writes them down."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from models.data.info import DatasetInfo
from models.findings import WarningCode
from models.networks import geometry, tracing
from models.networks.architecture import Architecture
from models.networks.cost import Cost
from models.networks.family import SMALLEST_INPUT, Family, Normalisation
from models.networks.warning import Warned, warning
from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec
from models.spec.model import CnnSpec
from models.spec.presets import model_presets
from models.text import plural

CENTRE = HALF_RANGE = 0.5
"""Pixels from -1 to 1, on which a plain CNN without batch norm trains best: `baseline` at batch 16 and rate 0.01 has a
validation accuracy of 0.557 after three epochs, and 0.526 on inputs of unit variance, which are twice as large."""


class Cnn(nn.Module):
    """`features` then `classifier`, both plain sequences: the spec read from top to bottom."""

    def __init__(self, spec: CnnSpec, *, num_classes: int, in_channels: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for block in spec.blocks:
            pool: list[nn.Module] = [] if block.pool is None else [nn.MaxPool2d(block.pool)]
            for place, conv in enumerate(block.convs, start=1):
                # the bias stays before a batch norm too, as in the report's networks, whose parameter counts are kept
                layers.append(nn.Conv2d(channels, conv.channels, conv.kernel_size, conv.stride, conv.padding))
                if conv.batch_norm:
                    layers.append(nn.BatchNorm2d(conv.channels))
                if place == len(block.convs):
                    layers += pool  # the maximum of what ReLU leaves is what ReLU leaves of the maximum, for less work
                layers.append(nn.ReLU(inplace=True))
                channels = conv.channels
                size = (size + 2 * conv.padding - conv.kernel_size) // conv.stride + 1
            if block.pool is not None:
                size //= block.pool
            if block.dropout:
                layers.append(nn.Dropout2d(block.dropout))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(*_head(spec, channels * size * size, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        return self.classifier(torch.flatten(self.features(images), 1))  # type: ignore[no-any-return]


def _head(spec: CnnSpec, num_features: int, num_classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    dropouts = spec.head.dropout or (0.0,) * (len(spec.head.hidden) + 1)
    for units, dropout in zip((*spec.head.hidden, num_classes), dropouts, strict=True):
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(num_features, units), nn.ReLU(inplace=True)]
        num_features = units
    return layers[:-1]  # no ReLU after the last linear layer: its outputs are logits


class CnnFamily(Family[CnnSpec]):
    """Networks of any size that a spec can write down, so that sizes and cost are found by arithmetic first."""

    fixed_size = True  # of the linear layers

    def build(self, model: CnnSpec, *, num_classes: int, in_channels: int, size: int, cache_dir: Path) -> nn.Module:
        """The network, with torch's initialisation."""
        return Cnn(model, num_classes=num_classes, in_channels=in_channels, size=size)

    def architectures(self) -> list[Architecture]:
        """The presets. Parameters are counted for CIFAR-10's images: linear layers depend on their size."""
        entries = []
        for name, preset in model_presets().items():
            if preset["name"] != "cnn":
                continue
            model = CnnSpec.model_validate_json(json.dumps(preset))
            size = model.input_size or 32
            cost = geometry.cost_of(model, num_classes=10, in_channels=3, size=size)
            title = f"{sum(len(block.convs) for block in model.blocks)} convolutions in {len(model.blocks)} blocks"
            entries.append(Architecture(name, title, cost.num_parameters, size, size, False, "the lab report"))
        return entries

    def normalisation(self, model: CnnSpec, info: DatasetInfo) -> Normalisation:
        """Pixels from -1 to 1."""
        return Normalisation(info.channels, (CENTRE,) * info.channels, (HALF_RANGE,) * info.channels)

    def check_size(self, model: CnnSpec, *, num_classes: int, in_channels: int, size: int) -> None:
        """Every layer's input must be large enough."""
        for _ in geometry.walk(model, num_classes=num_classes, in_channels=in_channels, size=size):
            pass

    def estimate_cost(self, model: CnnSpec, *, num_classes: int, in_channels: int, size: int) -> Cost:
        """The sum over the layers."""
        return geometry.cost_of(model, num_classes=num_classes, in_channels=in_channels, size=size)

    def adjustable_sizes(
        self, model: CnnSpec, *, num_classes: int, in_channels: int, size: int, batch_size: int
    ) -> list[tuple[str, int]]:
        """The width of the heaviest layer, and the input's side."""
        heaviest = geometry.heaviest_field(
            model, num_classes=num_classes, in_channels=in_channels, size=size, batch_size=batch_size
        )
        side = ("model.input_size", SMALLEST_INPUT)
        return [side] if heaviest == side[0] else [(heaviest, 1), side]

    def trace(self, network: nn.Module, in_channels: int, size: int, record: tracing.Record) -> None:
        """Layer by layer."""
        tracing.follow(network, in_channels, size, record)

    def is_normed(self, model: CnnSpec) -> bool:
        """Whether any convolution is normalised."""
        return any(conv.batch_norm for block in model.blocks for conv in block.convs)

    def warnings(self, spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
        """Mistakes in the head's hidden layers."""
        return _head_warnings(spec, info)


def _head_warnings(spec: ExperimentSpec, info: DatasetInfo) -> Iterator[Warned]:
    assert isinstance(spec.model, CnnSpec)
    hidden = spec.model.head.hidden
    if not hidden:
        return
    if hidden[-1] in (info.num_classes, 1000) and hidden[-1] <= 1000:
        yield warning(
            WarningCode.OUTPUT_LAYER_WRITTEN_DOWN,
            f"The last hidden layer has {plural(hidden[-1], 'unit')}, like an output layer. The output layer, to the "
            f"{info.num_classes} classes of {info.title}, is added by itself.",
            {"hidden": list(hidden), "num_classes": info.num_classes},
            "Leave the output layer out of model.head.hidden.",
            _shorter_head(spec.model, list(hidden[:-1])),
        )
    elif (narrowest := min(hidden)) < info.num_classes:
        yield warning(
            WarningCode.NARROW_HEAD,
            f"A hidden layer of {plural(narrowest, 'unit')} has to distinguish {info.num_classes} classes.",
            {"hidden": list(hidden), "num_classes": info.num_classes},
            f"Give every layer in model.head.hidden at least {info.num_classes} units.",
            {"model.head.hidden": [max(units, info.num_classes + 1) for units in hidden]},
        )


def _shorter_head(model: CnnSpec, hidden: list[int]) -> JsonObject:
    """A shorter head, its dropouts shortened with it."""
    dropout = list(model.head.dropout)
    return {"model.head": {"hidden": hidden, "dropout": [*dropout[: len(hidden)], dropout[-1]] if dropout else []}}


FAMILY = CnnFamily()
