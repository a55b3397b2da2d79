"""The report of a dataset's check: findings as sentences, with the images concerned."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypedDict, cast

from models.plain import JsonObject
from models.text import as_sentence

MOST_IDS = 1_000
"""The most images that a finding lists; `num_images` counts all of them."""


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    """Good to know."""
    WARNING = "warning"
    """Look at it before you trust a result."""
    PROBLEM = "problem"
    """Results will be wrong: the test split is not what it says."""


class FindingJson(TypedDict):
    """A Finding as JSON."""

    code: str
    severity: str
    sentence: str
    image_ids: list[int]
    num_images: int
    figures: JsonObject


class HealthReportJson(TypedDict):
    """A HealthReport as a worker sends and stores it."""

    fingerprint: str
    num_images: int
    findings: list[FindingJson]
    features: str | None


@dataclass(frozen=True)
class Finding:
    """One finding on a dataset, with the images concerned."""

    code: str
    """A stable identifier for programs, for example `duplicates.leakage`."""
    severity: Severity
    sentence: str
    image_ids: list[int] = field(default_factory=list)
    """The first of the images concerned. Training images are numbered from 0, followed by those of the test split."""
    num_images: int = 0
    figures: JsonObject = field(default_factory=dict)
    """Figures by name, of which each code has its own."""


@dataclass(frozen=True)
class HealthReport:
    """All findings on a dataset, the worst first."""

    fingerprint: str
    num_images: int
    findings: list[Finding]
    features: str | None
    """The features used for labels and the learning curve; None if those were not checked."""

    def as_json(self) -> HealthReportJson:
        """The report as a worker sends and stores it."""
        return cast(HealthReportJson, asdict(self))

    @classmethod
    def from_json(cls, data: HealthReportJson) -> "HealthReport":
        """Read back what `as_json` gave, as JSON keeps it. Raises KeyError, TypeError or ValueError for other data."""
        found: list[JsonObject] = [{**one, "severity": Severity(one["severity"])} for one in data["findings"]]
        members: JsonObject = {**data, "findings": [Finding(**one) for one in found]}
        return cls(**members)


def finding(code: str, severity: Severity, sentence: str, ids: list[int] | None = None, **figures: Any) -> Finding:
    """Make a finding on these images, of which it lists the first; its sentence gets a capital and a full stop."""
    ids = ids or []
    return Finding(code, severity, as_sentence(sentence), ids[:MOST_IDS], len(ids), figures)
