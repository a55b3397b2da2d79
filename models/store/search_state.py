"""The state of a search that its rows and experiments do not show: `Study.search`, as JSON."""

from typing import TypedDict

from models.networks.layer import Layer
from models.studies.images import RowImages


class SearchNetwork(TypedDict):
    """A network of a search's space, which was built when the search was sent."""

    key: str
    """See models.spec.trials.network_key."""
    layers: list[Layer]


class SearchState(TypedDict, total=False):
    """The state of a search. The first three members are there from its start."""

    dataset: str | None
    """Fingerprint of an uploaded dataset's version, which all trials use."""
    images: RowImages
    networks: list[SearchNetwork]
    judged: dict[str, int]
    """The epoch at which each running trial was judged for the last time, by the trial's number."""
    counted: int
    """How many trials had ended when `importances` were computed."""
    importances: dict[str, float] | None
    stopped: str | None
    """Why no more trials are drawn before their number is reached: "budget" or "space"."""
