"""The networks that `model.name` can be, for GET /architectures."""

from models.networks.architecture import Architecture, Library
from models.networks.family import families
from models.networks.timm_networks import is_installed, timm_architectures
from models.networks.torchvision_table import ARCHITECTURES as TORCHVISION

OWN, TIMM, ALL = "epochal", "timm", "all"


def architectures(family: str = ALL) -> list[Architecture]:
    """The networks that a spec can name, presets included; timm's only where they are asked for.

    Nothing is built. Raises SpecError for timm's where that is not installed.
    """
    if family == TIMM:
        return timm_architectures()
    entries = [entry for each in families() for entry in each.architectures()]
    known = {entry.name for entry in TORCHVISION}
    return [entry for entry in entries if family == ALL or (entry.name in known) == (family == "torchvision")]


def libraries() -> list[Library]:
    """The sources of networks, each with its number of networks."""
    own = sum(len(family.architectures()) for family in families()) - len(TORCHVISION)
    return [
        Library(OWN, "Networks of this project, presets and specs of your own", True, own),
        Library("torchvision", "torchvision's networks for classification", True, len(TORCHVISION)),
        Library(TIMM, "timm's networks, named timm/NAME (pip install timm)", is_installed()),
    ]
