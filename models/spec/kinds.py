"""Parts of a spec with several classes, discriminated by their `name`."""

from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel

from models.spec import training
from models.spec.model import FAMILIES, network_class

PARTS: dict[str, dict[str, type[BaseModel]]] = {
    part: {cls.model_fields["name"].default: cls for cls in get_args(get_args(union)[0])}
    for part, union in (("optimizer", training.OptimizerSpec), ("lr_scheduler", training.LrSchedulerSpec))
}
"""The classes of the parts that come in kinds by name, but for the network."""
KINDS_OF: dict[str, Mapping[str, type[BaseModel]]] = {"model": FAMILIES, **PARTS}
"""All of them, by part."""


def part_class(part: str, kind: str) -> type[BaseModel]:
    """The class of a part of this kind. Raises KeyError for an unknown kind."""
    cls = network_class(kind) if part == "model" else PARTS[part].get(kind)
    if cls is None:
        raise KeyError(kind)
    return cls
