"""Counts the processes that the kernel has killed because memory ran out."""

from pathlib import Path

from models.cgroups import PROC, control_groups

COUNTERS = ("memory.events", "memory.oom_control")
"""The counters' files in control groups of version 2 and 1."""


def oom_kills(proc: Path = PROC) -> int:
    """Processes that the kernel has killed for memory so far: in our control groups and on the machine.

    Only an increase while a process dies of SIGKILL has a meaning. 0 where the kernel has no such counter.
    """
    files = {folder / name for folder in control_groups("memory", proc) for name in COUNTERS}
    return sum(_counter(path) for path in {proc / "vmstat", *files})


def _counter(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
