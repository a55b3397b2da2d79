"""The preprocessing of images for a network, as it is stored with the weights.

`models.networks.inputs` applies it; this module needs no torch.
"""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from models.plain import JsonObject

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels (0 to 1, RGB), as torchvision's weights expect."""


class PreprocessingJson(TypedDict):
    """A Preprocessing as it is stored with the weights."""

    channels: int
    source_size: int
    input_size: int
    mean: list[float]
    std: list[float]
    class_names: list[str]
    grayscale: NotRequired[bool]
    antialias: NotRequired[bool]
    fit: NotRequired[str]


class WeightsDescription(TypedDict):
    """The description in a weights file: what is needed to build its network and to preprocess images."""

    model: JsonObject
    """The `model` part of the spec."""
    preprocessing: PreprocessingJson
    test_time_augmentation: NotRequired[str]
    epoch: NotRequired[int]
    """The epoch that the weights are of."""


@dataclass(frozen=True)
class Preprocessing:
    """The steps from any image to a network's input.

    An image is converted to gray if `grayscale`, else to RGB; made a square of `source_size` by `fit` (`crop` resizes
    the short side and keeps the centre, `pad` resizes the long side and adds black, `stretch` resizes both); repeated
    to `channels`; normalised with the `mean` and `std` of pixels from 0 to 1; and resized to `input_size`, antialiased
    if `antialias` (see `resize` in models.networks.inputs).
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
    fit: str = "crop"
    """As the dataset's images were fitted."""

    def to_json(self) -> PreprocessingJson:
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
            "fit": self.fit,
        }

    @classmethod
    def from_json(cls, data: PreprocessingJson) -> "Preprocessing":
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
            fit=str(data.get("fit", "crop")),
        )
