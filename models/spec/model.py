"""The `model` part of a spec: the network to train. One class per family of networks, listed in FAMILIES.

The other half of a family, which needs torch, is the module that its class names (see models.networks.family).
"""

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from models.spec.base import Spec, broken_rule
from models.spec.torchvision_names import ZooName as ZooName
from models.text import plural

Channels = Annotated[int, Field(ge=1, le=4096)]
InputSize = Annotated[int, Field(ge=8, le=512)]


class InitFromSpec(Spec):
    """Another experiment's weights to start from."""

    experiment: int = Field(ge=1, le=2**53, description="Its id.")
    weights: Literal["best", "last"] = Field(default="best", description="Which of its two sets.")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Digest of the weights' file, filled in when the spec is stored."
    )


class NetworkSpec(Spec):
    """Base class of `model` parts: the fields that the specs of all families have."""

    network_module: ClassVar[str]
    """The module of the family's other half."""

    init_from: InitFromSpec | None = Field(
        default=None,
        description="Start from another experiment's weights; the head is initialised anew where the classes differ.",
    )

    if TYPE_CHECKING:  # declared by each family, which decides their order in JSON
        name: str
        input_size: int | None

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_asked(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = write(self)
        start = body.pop("init_from", None)
        return body if start is None else {**body, "init_from": start}

    @property
    def starts_pretrained(self) -> bool:
        """Whether training starts from weights that were trained before."""
        return self.init_from is not None


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
    head: HeadSpec = Field(default=HeadSpec(), description="The linear layers that turn features into classes.")
    input_size: InputSize | None = Field(
        default=None, description="Side that images are resized to; null keeps the dataset's own size."
    )


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
        default=None,
        description="Side that images are resized to; null keeps the dataset's own size, or for a pretrained vision "
        "transformer that of its weights.",
    )

    @model_validator(mode="after")
    def _head_comes_with_weights(self) -> "ZooSpec":
        if self.keep_head and not self.pretrained:
            raise broken_rule("needs pretrained: true; without its weights there is no head to keep", field="keep_head")
        return self

    @property
    def starts_pretrained(self) -> bool:
        """Whether it starts from ImageNet weights, or another experiment's."""
        return self.pretrained or self.init_from is not None


class TimmSpec(NetworkSpec):
    """A network of the package timm, which is installed with epochal[timm], with a new head for the dataset's classes.

    Which names there are is known where timm is: when the network is built.
    """

    network_module: ClassVar[str] = "models.networks.timm_networks"

    name: Annotated[str, StringConstraints(pattern=r"^timm/[A-Za-z0-9_.]{1,90}$")] = Field(
        default="timm/resnet18", description="timm/ and the network's name there: timm/resnet10t."
    )
    pretrained: bool = Field(default=False, description="Start from timm's weights, with a newly initialised head.")
    input_size: InputSize | None = Field(
        default=None,
        description="Side that images are resized to; null keeps the dataset's own size, or takes that of the weights "
        "for a pretrained network and for one that fits a single size.",
    )

    @property
    def starts_pretrained(self) -> bool:
        """Whether it starts from timm's weights, or another experiment's."""
        return self.pretrained or self.init_from is not None


class FastResNetSpec(NetworkSpec):
    """A small residual network designed for high accuracy after a few epochs (see models/networks/fast_resnet.py)."""

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
    "timm/NAME": TimmSpec,
}
"""The classes of the `model` part by its `name`: the registry of families, each an entry here and a module."""


def network_class(name: Any) -> type[NetworkSpec] | None:
    """The class of the `model` part that a name stands for; None for a name that stands for none."""
    if not isinstance(name, str):
        return None
    return FAMILIES.get("timm/NAME" if name.startswith("timm/") else name)


def _read_network(value: Any, info: ValidationInfo) -> NetworkSpec:
    """Read a `model` part by the class that its name stands for, with errors of that class only."""
    if isinstance(value, NetworkSpec):
        return value
    cls = network_class(value.get("name")) if isinstance(value, dict) else None
    if cls is None:
        raise PydanticCustomError("network", "must be an object whose `name` is that of a network")
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
