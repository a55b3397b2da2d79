"""Whether the kernel has been ending processes for want of memory."""

from pathlib import Path

from models.cgroups import PROC, control_groups

COUNTERS = ("memory.events", "memory.oom_control")
"""Of control groups' versions 2 and 1."""


def oom_kills(proc: Path = PROC) -> int:
    """Processes that the kernel has killed for memory so far: in our control groups and on the machine.

    The figure means nothing by itself; that it rose while a process died of SIGKILL does. 0 where nothing tells.
    """
    files = {folder / name for folder in control_groups("memory", proc) for name in COUNTERS}
    return sum(_counter(path) for path in {proc / "vmstat", *files})


def _counter(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
