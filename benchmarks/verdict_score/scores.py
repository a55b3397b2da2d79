"""Recall and precision of each fault, with intervals, as Markdown tables."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.verdict_score.faults import FAULTS, Case
from models.findings import FindingCode

Z = 1.96


@dataclass(frozen=True)
class Judged:
    """A training and the causes that its verdict named."""

    case: Case
    named: frozenset[FindingCode]


@dataclass(frozen=True)
class Count:
    """So many of so many."""

    hits: int
    of: int

    @property
    def share(self) -> float | None:
        """The part; None of nothing."""
        return self.hits / self.of if self.of else None

    def __add__(self, other: "Count") -> "Count":
        return Count(self.hits + other.hits, self.of + other.of)

    def __str__(self) -> str:
        if self.share is None:
            return "-"
        low, high = wilson(self.hits, self.of)
        return f"{self.share:.2f} ({low:.2f} to {high:.2f})"


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95% interval of a proportion by Wilson's score."""
    share, spread = hits / of, Z * Z / of
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def recall(judged: Sequence[Judged], code: FindingCode) -> Count:
    """Trainings with this fault, and in how many of them it was named."""
    own = [one for one in judged if one.case.fault.code == code]
    return Count(sum(code in one.named for one in own), len(own))


def precision(judged: Sequence[Judged], code: FindingCode) -> Count:
    """Trainings of which the verdict names this fault, and how many of them have it."""
    named = [one for one in judged if code in one.named]
    return Count(sum(one.case.fault.code == code for one in named), len(named))


def codes(judged: Sequence[Judged]) -> list[FindingCode]:
    """The codes of the faults that these trainings have, or that were named."""
    found = {one.case.fault.code for one in judged}.union(*(one.named for one in judged))
    return [fault.code for fault in FAULTS if fault.code in found and fault.code is not None]


def _each(judged: Sequence[Judged]) -> tuple[list[Count], list[Count]]:
    """Recall and precision of each fault."""
    found = codes(judged)
    return [recall(judged, code) for code in found], [precision(judged, code) for code in found]


def total(counts: Sequence[Count]) -> Count:
    """All counts together."""
    return sum(counts, Count(0, 0))


def average(counts: Sequence[Count]) -> float:
    """The mean of the shares; one that is of nothing counts 0."""
    return sum(count.share or 0.0 for count in counts) / max(1, len(counts))


def fault_table(judged: Sequence[Judged]) -> Iterator[str]:
    """A line for each fault."""
    yield "| fault | trained | named | recall (95%) | named wrongly | precision (95%) |"
    yield "|---|---|---|---|---|---|"
    for code in codes(judged):
        found, right = recall(judged, code), precision(judged, code)
        yield f"| {code} | {found.of} | {found.hits} | {found} | {right.of - right.hits} | {right} |"
    recalls, precisions = _each(judged)
    found, right = total(recalls), total(precisions)
    yield f"| all | {found.of} | {found.hits} | {found} | {right.of - right.hits} | {right} |"
    yield f"| mean over faults | | | {average(recalls):.2f} | | {average(precisions):.2f} |"


def part_table(groups: dict[str, Sequence[Judged]]) -> Iterator[str]:
    """A line for each group of trainings: healthy ones called faulty, recall and precision over all faults."""
    yield "| trainings | healthy | a cause named of a healthy one | faulty | recall (95%) | precision (95%) |"
    yield "|---|---|---|---|---|---|"
    for name, judged in groups.items():
        healthy = [one for one in judged if one.case.fault.code is None]
        alarms = sum(bool(one.named) for one in healthy)
        found, right = map(total, _each(judged))
        yield f"| {name} | {len(healthy)} | {alarms} | {found.of} | {found} | {right} |"


def mistakes(judged: Sequence[Judged]) -> Iterator[str]:
    """Every training whose fault was not named, or of which another was."""
    for one in judged:
        wanted = set() if one.case.fault.code is None else {one.case.fault.code}
        if one.named != wanted:
            yield f"{one.case.name}: {', '.join(sorted(one.named)) or 'nothing'}"


def summary(judged: Sequence[Judged]) -> str:
    """Both means in a sentence."""
    recalls, precisions = _each(judged)
    means = f"means over faults {average(recalls):.2f} and {average(precisions):.2f}"
    return f"{len(judged)} trainings: recall {total(recalls)}, precision {total(precisions)}; {means}"
