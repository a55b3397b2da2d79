"""Parts of a spec with several classes, discriminated by their `name`."""

from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel

from models.spec import training
from models.spec.model import FAMILIES

PARTS: dict[str, dict[str, type[BaseModel]]] = {
    part: {cls.model_fields["name"].default: cls for cls in get_args(get_args(union)[0])}
    for part, union in (("optimizer", training.OptimizerSpec), ("lr_scheduler", training.LrSchedulerSpec))
}
"""The classes of the parts that come in kinds by name, but for the network."""
KINDS_OF: dict[str, Mapping[str, type[BaseModel]]] = {"model": FAMILIES, **PARTS}
"""All of them, by part."""
