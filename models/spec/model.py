"""The `model` part of a spec: the network to train. One class per family of networks, listed in FAMILIES.

The other half of a family, which needs torch, is the module that its class names (see models.networks.family).
"""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from models.spec.base import Spec, broken_rule
from models.text import plural

Channels = Annotated[int, Field(ge=1, le=4096)]
InputSize = Annotated[int, Field(ge=8, le=512)]


class NetworkSpec(Spec):
    """A `model` part: what the specs of all families of networks have."""

    network_module: ClassVar[str]
    """The module of the family's other half."""

    if TYPE_CHECKING:  # declared by each family, which decides their order in JSON
        name: str
        input_size: int | None

    @property
    def starts_pretrained(self) -> bool:
        """Whether training starts from weights that were trained on other images."""
        return False


class ConvSpec(Spec):
    """One convolution, followed by batch normalisation if asked, then ReLU."""

    channels: Channels = Field(description="Output channels.")
    kernel_size: int = Field(default=3, ge=1, le=31, description="Side of the square kernel.")
    padding: int = Field(default=0, ge=0, le=31, description="Zeros added at each edge.")
    stride: int = Field(default=1, ge=1, le=8, description="Step between kernel positions.")
    batch_norm: bool = Field(default=False, description="Batch normalisation between the convolution and its ReLU.")


class BlockSpec(Spec):
    """Convolutions, then max pooling, then dropout of whole channels."""

    convs: tuple[ConvSpec, ...] = Field(min_length=1, max_length=32, description="The block's convolutions in order.")
    pool: int | None = Field(default=2, ge=2, le=8, description="Side of the max pooling window; null for none.")
    dropout: float = Field(default=0.0, ge=0, le=0.95, description="Dropout2d probability after the pooling.")


class HeadSpec(Spec):
    """Linear layers with ReLU between them; the last one, to the classes, is added by itself."""

    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        default=(), max_length=16, description="Sizes of the hidden layers."
    )
    dropout: tuple[Annotated[float, Field(ge=0, le=0.95)], ...] = Field(
        default=(),
        max_length=17,
        description="Dropout probability before each linear layer, one more than `hidden` has; empty for none.",
    )

    @model_validator(mode="after")
    def _dropout_fits_hidden(self) -> "HeadSpec":
        if self.dropout and len(self.dropout) != len(self.hidden) + 1:
            wanted = len(self.hidden) + 1
            raise broken_rule(
                f"has {plural(len(self.dropout), 'entry', 'entries')} for {plural(len(self.hidden), 'hidden layer')}; "
                f"give {wanted}, one before each linear layer",
                field="dropout",
                nearest=(list(self.dropout) + [0.0] * wanted)[:wanted],
            )
        return self


class CnnSpec(NetworkSpec):
    """A plain convolutional network, written down block by block."""

    network_module: ClassVar[str] = "models.networks.cnn"

    name: Literal["cnn"] = "cnn"
    blocks: tuple[BlockSpec, ...] = Field(min_length=1, max_length=32, description="The blocks in order.")
    head: HeadSpec = Field(default=HeadSpec(), description="What turns features into classes.")
    input_size: InputSize | None = Field(
        default=None, description="Side that images are resized to; null keeps the dataset's own size."
    )


class ZooName(StrEnum):
    """Networks of torchvision that can be trained here."""

    SQUEEZENET1_0 = "squeezenet1_0"
    """SqueezeNet 1.0 (Iandola et al. 2016)."""
    SQUEEZENET1_1 = "squeezenet1_1"
    """SqueezeNet 1.1: 2.4 times less computation than 1.0 at the same accuracy."""
    RESNET18 = "resnet18"
    """ResNet-18 (He et al. 2015)."""
    RESNET34 = "resnet34"
    """ResNet-34."""
    RESNET50 = "resnet50"
    """ResNet-50."""
    MOBILENET_V2 = "mobilenet_v2"
    """MobileNetV2 (Sandler et al. 2018)."""
    MOBILENET_V3_SMALL = "mobilenet_v3_small"
    """MobileNetV3 small (Howard et al. 2019)."""
    EFFICIENTNET_B0 = "efficientnet_b0"
    """EfficientNet-B0 (Tan and Le 2019)."""
    SHUFFLENET_V2_X1_0 = "shufflenet_v2_x1_0"
    """ShuffleNetV2 (Ma et al. 2018)."""
    VGG11_BN = "vgg11_bn"
    """VGG-11 with batch normalisation (Simonyan and Zisserman 2014)."""
    DENSENET121 = "densenet121"
    """DenseNet-121 (Huang et al. 2016)."""


class ZooSpec(NetworkSpec):
    """A network of torchvision with a new head for the dataset's classes."""

    network_module: ClassVar[str] = "models.networks.zoo"

    name: ZooName = Field(description="Its name in torchvision.models.")
    pretrained: bool = Field(default=False, description="Start from ImageNet weights, with a newly initialised head.")
    keep_head: bool = Field(
        default=False,
        description="Keep ImageNet's 1000-class head, whose first outputs stand for the classes then: the lab "
        "report's mistake, to be reproduced on purpose. Needs `pretrained`.",
    )
    input_size: InputSize | None = Field(
        default=None, description="Side that images are resized to; null keeps the dataset's own size."
    )

    @model_validator(mode="after")
    def _head_comes_with_weights(self) -> "ZooSpec":
        if self.keep_head and not self.pretrained:
            raise broken_rule("needs pretrained: true; without its weights there is no head to keep", field="keep_head")
        return self

    @property
    def starts_pretrained(self) -> bool:
        """Whether it starts from ImageNet weights."""
        return self.pretrained


class FastResNetSpec(NetworkSpec):
    """A small residual network made to reach a good accuracy in little time (see models/networks/fast_resnet.py)."""

    network_module: ClassVar[str] = "models.networks.fast_resnet"

    name: Literal["fast_resnet"] = "fast_resnet"
    widths: tuple[Channels, Channels, Channels] = Field(
        default=(32, 128, 128), description="Output channels of the three stages."
    )
    whiten: bool = Field(default=True, description="First convolution fixed to whiten patches of the training images.")
    logit_scale: float = Field(default=0.125, ge=0.001, le=10, description="Factor on the outputs before the loss.")
    input_size: InputSize | None = Field(
        default=None, description="Side that images are resized to; null keeps the dataset's own size."
    )


FAMILIES: dict[str, type[NetworkSpec]] = {
    "cnn": CnnSpec,
    "fast_resnet": FastResNetSpec,
    **{name.value: ZooSpec for name in ZooName},
}
"""The classes of the `model` part by its `name`: the registry of families, each an entry here and a module."""


def _read_network(value: Any, info: ValidationInfo) -> NetworkSpec:
    """Read a `model` part by the class that its name stands for, with errors of that class only."""
    if isinstance(value, NetworkSpec):
        return value
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in FAMILIES:
        raise PydanticCustomError("network", "must be an object whose `name` is that of a network")
    cls = FAMILIES[name]
    # in a strict spec a list is a tuple, and a word an enum's member, in JSON only
    return cls.model_validate_json(json.dumps(value)) if info.mode == "json" else cls.model_validate(value)


class _ByName:
    """The schema of a part that is read by `_read_network`: any of the registered families, new ones too."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_read_network)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        families = dict.fromkeys(FAMILIES.values())
        return handler(core_schema.union_schema([family.__pydantic_core_schema__ for family in families]))


ModelSpec = Annotated[NetworkSpec, _ByName]
