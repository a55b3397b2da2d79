"""The parts of a spec that come in kinds, told apart by their `name`."""

from typing import get_args

from pydantic import BaseModel

from models.spec import training
from models.spec.model import CnnSpec, FastResNetSpec, ZooName, ZooSpec

FAMILIES: dict[str, type[BaseModel]] = {
    "cnn": CnnSpec,
    "fast_resnet": FastResNetSpec,
    **{name.value: ZooSpec for name in ZooName},
}
"""The classes of the `model` part by its name."""
PARTS: dict[str, dict[str, type[BaseModel]]] = {
    part: {cls.model_fields["name"].default: cls for cls in get_args(get_args(union)[0])}
    for part, union in (("optimizer", training.OptimizerSpec), ("lr_scheduler", training.LrSchedulerSpec))
}
"""The classes of the other parts that come in kinds, by name."""
KINDS_OF: dict[str, dict[str, type[BaseModel]]] = {"model": FAMILIES, **PARTS}
"""All of them, by part."""
