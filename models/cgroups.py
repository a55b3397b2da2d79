"""Reading of this process's control group limits (cgroups version 1 and 2, nested groups, containers)."""

import re
from pathlib import Path

PROC = Path("/proc")


def control_groups(controller: str, proc: Path = PROC) -> list[Path]:
    """The folders of this process's groups for a controller: its own, then each that encloses it, up to the mount.

    All of them limit the process. Both hierarchies are looked at, since a machine may use them side by side. What a
    container sees of the outer groups is what is mounted in it: there the path of /proc/self/cgroup may lie outside the
    mount, and the mount's own folder is the container's group.
    """
    try:
        memberships = (proc / "self" / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return []
    unified, separate = "/", "/"
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            unified = path
        elif controller in controllers.split(","):
            separate = path
    folders: list[Path] = []
    for line in mounts:
        # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
        before, _, after = line.partition(" - ")
        fields, (kind, *_, options) = before.split(), after.split()
        root, mount_point = (_unescaped(field) for field in fields[3:5])
        if kind == "cgroup2":
            folders += _chain(Path(mount_point), root, unified)
        elif kind == "cgroup" and controller in options.split(","):
            folders += _chain(Path(mount_point), root, separate)
    return folders


def _chain(mount_point: Path, root: str, path: str) -> list[Path]:
    """The folders from a group's up to the mount point, which shows the group `root`."""
    visible = Path(path).is_relative_to(root) and ".." not in path.split("/")
    inside = Path(path).relative_to(root) if visible else Path()
    folders = [mount_point / inside, *(mount_point / parent for parent in inside.parents)]
    return list(dict.fromkeys(folders))


def _unescaped(field: str) -> str:
    """Blanks and backslashes are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
