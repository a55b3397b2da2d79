"""How many cores a process may use, by affinity and by the quotas of its control groups."""

from pathlib import Path

import pytest

from models import cores
from models.cgroups import control_groups
from models.cores import thread_limit, usable_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


class Machine:
    """A made-up /proc and its control groups."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.groups = folder / "proc", folder / "sys"
        (self.proc / "self").mkdir(parents=True)
        self.member("0::/")
        self.mounts()

    def member(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mounts(self, *mounts: tuple[str, str, str, str]) -> None:
        """Each as root, place under the groups' folder, kind and options."""
        lines = [
            f"30 23 0:28 {root} {self.groups}/{place} rw,relatime shared:9 - {kind} cgroup {options}\n"
            for root, place, kind, options in mounts
        ]
        (self.proc / "self" / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/root rw\n" + "".join(lines))

    def write(self, place: str, content: str) -> None:
        file = self.groups / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


VERSION_2 = ("/", "", "cgroup2", "rw,nsdelegate")
VERSION_1 = ("/", "cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("199999 100000", 1),
        ("50000 100000", 1),
        ("1000 1000000", 1),
        ("3000 1000", 3),
        ("6400000 100000", 8),
        ("", 8),
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_a_quota_of_version_2_counts_whole_cores(machine: Machine, quota: str, expected: int) -> None:
    machine.mounts(VERSION_2)
    machine.write("cpu.max", quota)
    assert usable_cores(machine.proc) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1", "100000", 8), ("150000", "100000", 1), ("400000", "100000", 4), ("10", "100000", 1), ("x", "y", 8)],
)
def test_a_quota_of_version_1_counts_whole_cores(machine: Machine, quota: str, period: str, expected: int) -> None:
    machine.member("4:cpu,cpuacct:/lab", "0::/")
    machine.mounts(VERSION_1)
    machine.write("cpu,cpuacct/lab/cpu.cfs_quota_us", f"{quota}\n")
    machine.write("cpu,cpuacct/lab/cpu.cfs_period_us", f"{period}\n")
    assert usable_cores(machine.proc) == expected


def test_the_smallest_quota_on_the_way_to_the_root_counts(machine: Machine) -> None:
    machine.member("0::/user.slice/lab.service/worker")
    machine.mounts(VERSION_2)
    machine.write("user.slice/cpu.max", "300000 100000")
    machine.write("user.slice/lab.service/worker/cpu.max", "700000 100000")
    assert usable_cores(machine.proc) == 3
    machine.write("user.slice/lab.service/worker/cpu.max", "100000 100000")
    assert usable_cores(machine.proc) == 1


def test_a_neighbours_quota_does_not_count(machine: Machine) -> None:
    machine.member("0::/mine")
    machine.mounts(VERSION_2)
    machine.write("another/cpu.max", "100000 100000")
    assert usable_cores(machine.proc) == 8


@pytest.mark.parametrize("member", ["/docker/4f2a", "/", "/../../elsewhere"])
def test_in_a_container_the_mounted_group_is_the_containers(machine: Machine, member: str) -> None:
    """Without a namespace of its own the container sees the host's path, which is not below its mount."""
    machine.member(f"3:cpu,cpuacct:{member}", f"0::{member}")
    machine.mounts(("/docker/4f2a", "cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"))
    machine.write("cpu,cpuacct/cpu.cfs_quota_us", "200000")
    machine.write("cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert usable_cores(machine.proc) == 2


def test_both_versions_may_be_mounted_at_once(machine: Machine) -> None:
    machine.member("2:cpu,cpuacct:/a", "0::/b")
    machine.mounts(VERSION_1, ("/", "unified", "cgroup2", "rw"))
    machine.write("cpu,cpuacct/a/cpu.cfs_quota_us", "500000")
    machine.write("cpu,cpuacct/a/cpu.cfs_period_us", "100000")
    machine.write("unified/b/cpu.max", "400000 100000")
    assert usable_cores(machine.proc) == 4


def test_a_mount_point_with_a_blank_is_read(machine: Machine) -> None:
    machine.mounts(("/", "with\\040blank", "cgroup2", "rw"))
    machine.write("with blank/cpu.max", "200000 100000")
    assert usable_cores(machine.proc) == 2


def test_affinity_counts_where_it_is_smaller(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.mounts(VERSION_2)
    machine.write("cpu.max", "400000 100000")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert usable_cores(machine.proc) == 1


def test_without_affinity_and_control_groups_the_machines_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path) == 6
    monkeypatch.setattr(cores.os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("3", 3), ("1", 1), ("64", 8), ("2,4", 2), (" 5 ", 5), ("", 8), ("0", 8), ("-2", 8), ("many", 8)],
)
def test_the_users_number_of_threads_is_an_upper_bound(machine: Machine, wanted: str, expected: int) -> None:
    assert thread_limit({"OMP_NUM_THREADS": wanted}, machine.proc) == expected


def test_this_machine_has_a_core() -> None:
    assert 1 <= thread_limit({}) == usable_cores() <= 8
    assert all(folder.is_absolute() for folder in control_groups("cpu"))
