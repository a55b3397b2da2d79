"""The declarative CNN: blocks of convolutions and a head of linear layers, as the spec writes them down."""

import torch
from torch import Tensor, nn

from models.spec.model import CnnSpec


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
