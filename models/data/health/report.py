"""What a dataset's images and labels give reason to look at: findings as plain sentences with the images."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

MOST_IDS = 1_000
"""Images that a finding names; it counts all of them."""

Progress = Callable[[str, int, int], None]


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    """Good to know."""
    WARNING = "warning"
    """Look at it before you trust a result."""
    PROBLEM = "problem"
    """Results will be wrong: the test split is not what it says."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    code: str
    """`duplicates.leakage`: stable, for programs."""
    severity: Severity
    sentence: str
    image_ids: list[int] = field(default_factory=list)
    """The first of the images concerned: training images from 0 on, those of the test split behind them."""
    num_images: int = 0
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HealthReport:
    """All findings on a dataset, the worst first."""

    fingerprint: str
    num_images: int
    findings: list[Finding]
    features: str | None
    """What label suspects and the learning curve were judged by; None if they were not."""

    def as_json(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


def finding(code: str, severity: Severity, sentence: str, ids: list[int] | None = None, **figures: Any) -> Finding:
    """A finding on these images, of which the first are named."""
    ids = ids or []
    return Finding(code, severity, sentence, ids[:MOST_IDS], len(ids), figures)
