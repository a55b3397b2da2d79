"""Counts the other training processes on this machine by file locks that each of them holds. Free of torch.

Workers of one lab, of two labs, of other users and of containers that share a folder all lock the same file. A lock is
a range of bytes: its start encodes the machine and control group of its owner, its length the number of threads that
the owner trains with. Nothing is ever written to the file. The kernel releases the lock when the process ends.
"""

import errno
import fcntl
import os
import random
import struct
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from models.cgroups import PROC, control_groups
from models.cores import machine_cores, usable_cores

FILE = "epochal-training.lock"
SHARED_FOLDERS = (Path("/dev/shm"), Path(tempfile.gettempdir()))  # noqa: S108 (opened without following links)
"""The first usable one of these folders is shared by processes of different labs and users."""

MOST_THREADS = 1 << 12
OWNERS = 1 << 20
GROUPS = 1 << 14
MACHINES = 1 << 16
"""A position in the file is (((machine * GROUPS) + group) * OWNERS + owner) * MOST_THREADS, below 2**62."""

_LAYOUT = "hhqqi4x"
"""struct flock on 64-bit Linux: kind, whence, start, length, process."""
_CAN_LOCK = all(hasattr(fcntl, name) for name in ("F_OFD_SETLK", "F_OFD_GETLK"))
"""Locks that belong to an open file and not to a process are Linux's. Elsewhere no others are counted."""


@dataclass(frozen=True)
class Neighbour:
    """Another training process on this machine."""

    group: int
    """An id of its control group and the cores that it is confined to."""
    threads: int


class Neighbours:
    """Registers this process among those that train on its machine, and counts them.

    `folders` are searched besides the shared one: a lab's data directory, which its containers share. A folder that is
    missing, read-only or without locks is left out; with none, no others are counted.
    """

    def __init__(self, folders: Iterable[Path] = (), shared: Sequence[Path] = SHARED_FOLDERS) -> None:
        self.group = _group()
        self._cores = usable_cores()
        self._machine = _machine()
        self._owner = random.SystemRandom().randrange(OWNERS)
        self._files: list[int] = []
        places = [(shared, 0o644), *(([folder], 0o600) for folder in folders)]
        for candidates, mode in places:
            opened = next((file for place in candidates if (file := _open(place / FILE, mode)) is not None), None)
            if opened is not None:
                self._files.append(opened)

    def train_with(self, threads: int) -> None:
        """Publish how many threads this process trains with."""
        start = self._start(self._machine, self.group, self._owner)
        threads = max(1, min(threads, MOST_THREADS - 1))
        for file in self._files:
            with suppress(OSError):  # a file system without locks: counted as if alone
                _lock(file, fcntl.F_RDLCK, start, threads)
                _lock(file, fcntl.F_UNLCK, start + threads, MOST_THREADS - threads)

    def others(self) -> list[Neighbour]:
        """The other processes that train on this machine now."""
        first = self._start(self._machine, 0, 0)
        last = self._start(self._machine + 1, 0, 0)
        found: dict[int, int] = {}
        for file in self._files:
            with suppress(OSError):
                found |= _locks(file, first, last)
        found.pop(self._start(self._machine, self.group, self._owner), None)  # through another name of the same file
        return [Neighbour(start // MOST_THREADS // OWNERS % GROUPS, length) for start, length in sorted(found.items())]

    def fair_share(self, limit: int) -> int:
        """The number of threads, up to `limit`, that is fair to the others: the free cores, or an equal share of all.

        Those of the same control group share its quota and cores, and all share the machine's.
        """
        others = self.others()
        alike = [other for other in others if other.group == self.group]
        return max(1, min(limit, _share(self._cores, alike), _share(machine_cores(), others)))

    def close(self) -> None:
        """Release the lock: the others do not count this process any more."""
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _start(machine: int, group: int, owner: int) -> int:
        return ((machine * GROUPS + group) * OWNERS + owner) * MOST_THREADS


def _share(cores: int, others: Sequence[Neighbour]) -> int:
    return max(cores - sum(other.threads for other in others), cores // (1 + len(others)))


def _machine() -> int:
    """An id of this machine since its boot, the same in all its containers."""
    with suppress(OSError):
        return zlib.crc32((PROC / "sys/kernel/random/boot_id").read_bytes()) % MACHINES
    return 0


def _group() -> int:
    """An id of the cores that this process shares: its control group, of those with a limit, and its affinity."""
    limits: list[object] = [sorted(os.sched_getaffinity(0))] if hasattr(os, "sched_getaffinity") else []
    for folder in control_groups("cpu"):
        with suppress(OSError):
            limits.append(folder.stat().st_ino)
            break
    return zlib.crc32(repr(limits).encode()) % GROUPS


def _open(path: Path, mode: int) -> int | None:
    """Open the file, created with `mode` if missing; read access is enough to lock it. Follows no links."""
    if not _CAN_LOCK:
        return None
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    for _ in range(2):
        with suppress(OSError):
            return os.open(path, flags)
        try:
            # not O_CREAT alone: in a folder like /tmp the kernel refuses that for another user's file
            made = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            if error.errno == errno.EEXIST:
                continue
            return None
        os.fchmod(made, mode)
        return made
    return None


def _lock(file: int, kind: int, start: int, length: int) -> None:
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(_LAYOUT, kind, os.SEEK_SET, start, length, 0))


def _locks(file: int, first: int, last: int) -> dict[int, int]:
    """The locks of others between two positions: start -> length.

    The kernel names one lock that a range meets; what lies before and after it is asked for in turn.
    """
    found: dict[int, int] = {}
    ranges = [(first, last)]
    while ranges:
        start, end = ranges.pop()
        if start >= end:
            continue
        asked = struct.pack(_LAYOUT, fcntl.F_WRLCK, os.SEEK_SET, start, end - start, 0)
        kind, _, at, length, _ = struct.unpack(_LAYOUT, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            continue
        stop = at + length if length else end  # a length of 0 reaches to the end of the file
        if at % MOST_THREADS == 0 and 0 < length < MOST_THREADS:
            found[at] = length
        ranges += [(start, at), (stop, end)]
    return found
