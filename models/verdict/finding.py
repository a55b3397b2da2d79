"""One finding: what was seen, how bad it is, in words a student understands, with the numbers and what to try."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from models.plain import finite
from models.text import number, percent, plural

__all__ = ["ORDER", "Finding", "Severity", "how_sure", "make_finding", "number", "percent", "plural"]

Finding = dict[str, Any]


class Severity(StrEnum):
    """How much a finding should worry its reader."""

    GOOD = "good"
    """As it should be."""
    INFO = "info"
    """Worth knowing."""
    WARNING = "warning"
    """Costs accuracy or time."""
    PROBLEM = "problem"
    """The result is not worth having."""


ORDER = [Severity.PROBLEM, Severity.WARNING, Severity.INFO, Severity.GOOD]


def make_finding(
    code: str,
    severity: Severity,
    sentence: str,
    *,
    epochs: Iterable[int] = (),
    values: Mapping[str, Any] | None = None,
    suggestion: str = "",
) -> Finding:
    """A finding as JSON data. Epochs count from 1; numbers that are not finite become null."""
    return {
        "code": code,
        "severity": str(severity),
        "sentence": sentence,
        "evidence": {"epochs": [int(epoch) for epoch in epochs], "values": finite(dict(values or {}))},
        "suggestion": suggestion,
    }


def how_sure(confidence: float) -> str:
    """A confidence in words, with the number."""
    if confidence >= 0.99:
        return "more than 99% sure"
    return f"{100 * confidence:.0f}% sure"
