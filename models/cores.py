"""Counts the cores that this process may use. Free of torch."""

import os
from collections.abc import Mapping
from pathlib import Path

from models.cgroups import PROC, control_groups

Environment = Mapping[str, str]


def usable_cores(proc: Path = PROC) -> int:
    """The cores that this process may use, by affinity and by the quotas of its control groups.

    A quota of 2.5 cores counts as 2, one of 0.5 as 1: a throttled thread keeps the others waiting.
    """
    return max(1, min([_affine_cores(), *(int(quota) for quota in _quotas(proc))]))


def machine_cores() -> int:
    """The cores of the whole machine."""
    return os.cpu_count() or 1


def thread_limit(environment: Environment = os.environ, proc: Path = PROC) -> int:
    """The largest number of threads for a computation: the usable cores, or fewer by the user's OMP_NUM_THREADS."""
    cores = usable_cores(proc)
    wanted = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list has a number for each level
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else cores


def _affine_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cores()


def _quotas(proc: Path) -> list[float]:
    """The quota, in cores, of each group that has one.

    https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/scheduler/sched-bwc.html
    """
    found = []
    for folder in control_groups("cpu", proc):
        # quota and period in microseconds; "max" and -1 mean no limit
        numbers = [
            *_words(folder / "cpu.max"),
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers) and int(numbers[1]) > 0:
            found.append(int(numbers[0]) / int(numbers[1]))
    return found


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
