"""The networks that `model.name` can be, for GET /architectures."""

from models.networks.architecture import Architecture
from models.networks.family import families


def architectures() -> list[Architecture]:
    """Every network that a spec can name, presets included."""
    return [entry for family in families() for entry in family.architectures()]
