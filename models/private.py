"""Permissions of a lab's files: folders 0700, files 0600, whatever the umask.

They hold digests of keys, the secret that signs forms, and all users' results. Programs that only work on a lab call
`keep_private` once; a command that also writes files for people does the lab's part inside `private()`.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

UMASK = 0o077
OF_OTHERS = 0o077
PARTS = ("experiments", "broker", "logs")
FILES = ("epochal.db", "lab.", ".lab.", "session.secret", ".session.secret", ".restore-")
"""Prefixes of the names of a lab's own files, beside its folders."""


def keep_private() -> None:
    """Set the umask so that files that this process and its children create are private to this user."""
    os.umask(UMASK)


@contextmanager
def private() -> Iterator[None]:
    """Files created within this block are private to this user. Affects the whole process, as a umask does."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)


def open_privately(path: Path) -> IO[bytes]:
    """A file to append to, made for this user alone if it is not there. Touches no umask, so threads may use it."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def close_to_others(data_dir: Path) -> str | None:
    """Make a data directory if there is none, and take away what others may do with one that is there.

    One that holds more than a lab's files stays as it is, and only the lab's own are closed. Returns a sentence about
    what was open, or still is; None when nothing was. Raises OSError where the folder cannot be made.
    """
    with private():
        data_dir.mkdir(parents=True, exist_ok=True)
    found = data_dir.stat()
    if found.st_uid != os.geteuid():
        return f"{data_dir} belongs to another user, who can read all of it" if os.geteuid() else None
    ours = [path for path in data_dir.iterdir() if path.name in PARTS or path.name.startswith(FILES)]
    for path in ours:
        _close(path)
    if not found.st_mode & OF_OTHERS:
        return None
    if len(ours) < len(os.listdir(data_dir)):
        mode = stat.S_IMODE(found.st_mode)
        return f"{data_dir} is open to other users ({mode:04o}) and holds other files too; only the lab's were closed"
    _take_away(data_dir, found.st_mode)
    return f"{data_dir} was open to other users ({stat.S_IMODE(found.st_mode):04o}) and is now private"


def _close(path: Path) -> None:
    """Close a file, or a folder with all in it if it was open itself: what is in a closed one cannot be reached."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode) or not mode & OF_OTHERS:
        return
    _take_away(path, mode)
    if stat.S_ISDIR(mode):
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                below = Path(folder, name)
                try:
                    its_mode = below.lstat().st_mode
                    if not stat.S_ISLNK(its_mode) and its_mode & OF_OTHERS:
                        _take_away(below, its_mode)
                except FileNotFoundError:  # a run that goes on replaces its files
                    continue


def _take_away(path: Path, mode: int) -> None:
    path.chmod(stat.S_IMODE(mode) & ~OF_OTHERS)
