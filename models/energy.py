"""Energy by the processor's counters (Linux, RAPL), which often only root may read and many cloud machines lack."""

from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")

Counters = Mapping[str, tuple[int, int]]
"""Microjoules so far, and the value after which a counter begins again, by package."""


def read_counters(folder: Path = POWERCAP) -> Counters:
    """The counters of all processor packages; empty where the machine has none that can be read."""
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


def joules_used(before: Counters, after: Counters) -> float | None:
    """Energy of all packages between two readings, whatever ran on them; None without counters."""
    spent = []
    for name, (later, most) in after.items():
        if name in before:
            used = later - before[name][0]
            spent.append(used if used >= 0 else used + most)
    return sum(spent) / 1e6 if spent else None
