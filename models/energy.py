"""Energy that the processor tells by its counters (Linux, RAPL): often for root alone, and absent in many clouds."""

from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")

Counters = Mapping[str, tuple[int, int]]
"""Microjoules so far, and the value after which a counter begins again, by package."""


def read_counters(folder: Path = POWERCAP) -> Counters:
    """The counters of all processor packages; empty where the machine tells nothing."""
    found = {}
    for package in sorted(folder.glob("intel-rapl:*")):  # AMD's have the same name; 0:1 is a part of 0
        if package.name.count(":") != 1:
            continue
        try:
            value = int((package / "energy_uj").read_text())
            found[package.name] = (value, int((package / "max_energy_range_uj").read_text()))
        except (OSError, ValueError):
            continue
    return found


def joules_between(before: Counters, after: Counters) -> float | None:
    """What all packages took between two looks, whatever ran on them; None where the machine tells nothing."""
    spent = []
    for name, (later, most) in after.items():
        if name in before:
            used = later - before[name][0]
            spent.append(used if used >= 0 else used + most)
    return sum(spent) / 1e6 if spent else None
