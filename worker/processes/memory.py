"""Whether the kernel has been ending processes for want of memory."""

from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def oom_kills() -> int:
    """Processes that the kernel has killed for memory so far: in our control group and on the machine.

    The figure means nothing by itself; that it rose while a process died of SIGKILL does. 0 where nothing tells.
    """
    return sum(_counter(path) for path in {PROC / "vmstat", *_control_group_files()})


def _control_group_files() -> list[Path]:
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files += [CGROUPS / path.lstrip("/") / "memory.events", CGROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            files += [
                CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control",
                CGROUPS / "memory" / "memory.oom_control",
            ]
    return files


def _counter(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
