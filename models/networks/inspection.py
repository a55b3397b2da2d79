"""Inspects a network on the meta device, without allocating it: layers, operations, memory."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from models.networks.build import build_network
from models.networks.cost import FLOAT_BYTES, Cost
from models.networks.family import family_of
from models.networks.layer import Layer
from models.networks.layers import head_name
from models.networks.tracing import Record
from models.spec.model import NetworkSpec


@dataclass(frozen=True)
class Inspection:
    """The result of an inspection. `layers` is as in NetworkSummary."""

    layers: tuple[Layer, ...]
    cost: Cost
    macs: int
    """Multiply-accumulates of one image's forward pass."""
    weight_bytes: int
    parameters: tuple[str, ...]
    """Names of those that are trained."""
    head: str
    """Name of the last layer with weights."""
    smallest_norm_values: int | None
    """Values per channel and image at the batch norm with the smallest feature map; None without batch norm."""


@lru_cache(maxsize=256)
def inspect_network(model: NetworkSpec, *, num_classes: int, in_channels: int, size: int) -> Inspection:
    """Build the network on the meta device and inspect it."""
    # building draws random numbers, even on the meta device: the caller's are put back
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = build_network(model, num_classes=num_classes, in_channels=in_channels, size=size)
    record = Record()
    family_of(model).trace(network, in_channels, size, record)
    parameters = list(network.parameters())
    return Inspection(
        layers=tuple(record.layers.values()),
        cost=Cost(
            num_parameters=sum(parameter.numel() for parameter in parameters),
            activation_bytes=sum(record.kept),
            largest_activation_bytes=max(record.kept),
            first_kernels_bytes=next(
                math.prod(layer["kernel_shape"]) * FLOAT_BYTES
                for layer in record.layers.values()
                if layer["kernel_shape"]
            ),
        ),
        macs=record.macs,
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *network.buffers())),
        parameters=tuple(name for name, parameter in network.named_parameters() if parameter.requires_grad),
        head=head_name(network),
        smallest_norm_values=record.smallest_norm_values,
    )
