"""The description of a divergence: where a loss, gradient or weight stopped being finite, and which rate works."""

from dataclasses import dataclass
from typing import Literal

from models.plain import JsonObject, finite

What = Literal["loss", "gradient", "weight"]
WORDS: dict[What, str] = {"loss": "the loss", "gradient": "the gradient", "weight": "a weight"}


@dataclass(frozen=True)
class Divergence:
    """One divergence, explained as far as could be."""

    epoch: int
    """Counted from 1."""
    step: int
    """Counted from 1 within the epoch."""
    what: What
    """What stopped being finite first."""
    layer: str | None
    """The first layer whose output, gradient or weight did; None when the replay stayed finite."""
    layer_type: str | None
    grad_norms: tuple[float, ...]
    """The gradient's norm in the steps up to it, oldest first; non-finite values included."""
    lr: float | None
    """The learning rate of that step."""
    suggested_lr: float | None
    """A learning rate that works, from a learning-rate test run there and then; None when none did."""
    why: str
    """How that rate was chosen, or why none is advised."""
    lowered_to: float | None = None
    """The rate that training went on with (on_divergence: lower_lr); None when it stopped."""

    @property
    def what_happened(self) -> str:
        """A sentence on what stopped being finite and where, for the run's reason, its notices and its verdict."""
        kind = f" ({self.layer_type})" if self.layer_type else ""
        first = f", first in layer {self.layer}{kind}" if self.layer else ""
        return f"{WORDS[self.what]} stopped being finite at step {self.step} of epoch {self.epoch}{first}"

    def to_json(self) -> JsonObject:
        """Plain JSON data; non-finite norms are null."""
        body: JsonObject = finite({**vars(self), "grad_norms": list(self.grad_norms)})
        return body
