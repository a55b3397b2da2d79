"""What an image becomes before a network sees it. Stored with the weights, so that a prediction never guesses."""

from dataclasses import dataclass
from typing import Any

from models.data.info import DatasetInfo
from models.spec.experiment import ExperimentSpec
from models.spec.model import CnnSpec, ZooSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CENTRE = HALF_RANGE = 0.5
"""Pixels from -1 to 1, on which a plain CNN without batch norm trains best: `baseline` at batch 16 and rate 0.01 has a
validation accuracy of 0.557 after three epochs, and 0.526 on inputs of unit variance, which are twice as large."""


@dataclass(frozen=True)
class Preprocessing:
    """From any image to a network's input.

    An image is brought to gray if `grayscale`, else to RGB; resized until its short side is `source_size` and cropped
    to the centre; repeated to `channels`; normalised with the `mean` and `std` of pixels from 0 to 1; and resized to
    `input_size`, averaging over the pixels that become one if `antialias` (see `resize` in models.networks.resizing).
    """

    channels: int
    source_size: int
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    grayscale: bool = False
    antialias: bool = False
    """False for weights of spec version 1, whose files do not say it."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "channels": self.channels,
            "source_size": self.source_size,
            "input_size": self.input_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "class_names": list(self.class_names),
            "grayscale": self.grayscale,
            "antialias": self.antialias,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Preprocessing":
        """Read back what `to_json` wrote."""
        return cls(
            channels=int(data["channels"]),
            source_size=int(data["source_size"]),
            input_size=int(data["input_size"]),
            mean=tuple(float(value) for value in data["mean"]),
            std=tuple(float(value) for value in data["std"]),
            class_names=tuple(str(name) for name in data["class_names"]),
            grayscale=bool(data.get("grayscale", False)),
            antialias=bool(data.get("antialias", False)),
        )


def preprocessing_for(spec: ExperimentSpec, info: DatasetInfo) -> Preprocessing:
    """What this experiment's network is trained on, and must be asked about with.

    A pretrained network gets three channels in ImageNet's normalisation, which its weights know: gray images are
    repeated to three channels. Any other network gets the dataset's own channels: a plain CNN pixels from -1 to 1, the
    rest the dataset's mean and deviation.
    """
    pretrained = isinstance(spec.model, ZooSpec) and spec.model.pretrained
    mean, std = info.mean, info.std
    if pretrained:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    elif isinstance(spec.model, CnnSpec):
        mean, std = (CENTRE,) * info.channels, (HALF_RANGE,) * info.channels
    return Preprocessing(
        channels=3 if pretrained else info.channels,
        source_size=info.size,
        input_size=spec.model.input_size or info.size,
        mean=mean,
        std=std,
        class_names=info.class_names,
        grayscale=info.channels == 1,
        antialias=not spec.keeps_first_rules,
    )
