"""Atomic and durable writing of files, their digests, and the error for a full or read-only disk.

A file is written under a temporary name in its own folder, flushed to the disk (fsync) and renamed; then the folder is
flushed, so that after a crash or a power cut there is the old file or the new one.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import CorruptFile, StorageFull

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Error numbers of a disk that is full or mounted read-only."""
UNWRITABLE = NO_SPACE | {
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG),
    *(errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
}
"""Error numbers by which writing a file fails because of the disk, its permissions or the place named."""
FREE_SPACE = "free some space, or make the data directory writable, and try again"
"""The `fix` of errors about a full disk."""
FREE_CACHE = "free space there, or set EPOCHAL_CACHE_DIR to a writable folder"
TEMPORARY_SUFFIX = ".partial"
LONGEST_NAME = 255
"""Bytes that file systems allow a name."""


@contextmanager
def storage_errors(what: str, *, fix: str = FREE_SPACE) -> Iterator[None]:
    """Raise StorageFull in place of an OSError of a disk that is full or cannot be written.

    `what` begins the message ("weights.pt cannot be written"); the operating system's reason is added to it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise StorageFull(f"{what}: {os.strerror(error.errno)}", fix=fix) from error


@contextmanager
def placing(path: Path, *, fix: str = FREE_SPACE) -> Iterator[Path]:
    """A temporary path to write a file at, which is moved to `path` if the block ends without an error.

    The folder of `path` is made if it is not there. Raises StorageFull, with `fix`, when the disk is full or cannot be
    written; then, and after any other error, `path` is as it was.
    """
    temporary = _temporary(path)
    try:
        with storage_errors(f"{path.name} cannot be written", fix=fix):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: Path, data: bytes | memoryview, *, mode: int = 0o666, fix: str = FREE_SPACE) -> None:
    """Write a file in one piece; a link at `path` is replaced, not followed. Raises StorageFull as `placing` does.

    `mode` are the permissions of the new file, before the umask takes some away.
    """
    with placing(path, fix=fix) as temporary:
        _write_new(temporary, data, mode)


def write_once(path: Path, data: bytes | memoryview, *, mode: int = 0o666) -> bool:
    """Write a file unless there is one: of several processes that do so at once, one writes. Returns whether this did.

    Raises StorageFull when the disk is full or cannot be written.
    """
    temporary = _temporary(path)
    try:
        with storage_errors(f"{path.name} cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_new(temporary, data, mode)
            flush(temporary)
            os.link(temporary, path)  # unlike a rename, fails if another process was first
            flush(path.parent)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _temporary(path: Path) -> Path:
    # A name may have 255 bytes, so no more than a part of it goes into the temporary one.
    return path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"


def _write_new(path: Path, data: bytes | memoryview, mode: int) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)


def link(path: Path, other: Path) -> None:
    """Give a complete file that is never changed a second name, or copy it where the file system has no hard links.

    The folder of `other` must be there. Raises FileExistsError where `other` is, StorageFull when the disk is full.
    """
    try:
        os.link(path, other)
    except FileExistsError:
        raise
    except OSError:
        with placing(other) as temporary:
            shutil.copyfile(path, temporary)
    flush(other.parent)


def flush(path: Path) -> None:
    """Wait until a file's contents, or a folder's list of names, are on the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, if missing. Raises StorageFull if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFull(
            f"{folder} cannot be used as a folder: {error.strerror}", fix="name one that you can write to"
        ) from error


def inside(folder: Path, name: str) -> Path:
    """The place of a stored relative path `name` below `folder`.

    Raises CorruptFile unless it is a plain path of names, and stays inside when symbolic links on the way are followed.
    """
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(os.fsencode(part)) <= LONGEST_NAME for part in parts)
    if not plain or "\\" in name or not name.isprintable():
        raise CorruptFile(f"the recorded path {name[:80]!r} is not a path inside the data directory")
    path = folder.joinpath(*parts)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise CorruptFile(f"the recorded path {name[:80]!r} leads out of the data directory through a link")
    return path


def remove_leftovers(folder: Path) -> int:
    """Remove temporary files of killed processes below a folder that no process writes to. Returns their number.

    Links are not followed: not `folder` itself, and none below it.
    """
    found = [] if folder.is_symlink() else list(folder.rglob(f".*{TEMPORARY_SUFFIX}"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, if it is there. Of a symbolic link only the link is removed."""
    with suppress(FileNotFoundError):
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)


def sha256_of(path: Path) -> str:
    """The digest of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, sha256: str) -> None:
    """Raise CorruptFile unless the file is there and has this digest."""
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CorruptFile(f"{path.name} cannot be read: {error.strerror}") from error
    compare_digests(path.name, found, sha256)


def compare_digests(name: str, found: str, recorded: str) -> None:
    """Raise CorruptFile unless the digest found of a file is the recorded one."""
    if found != recorded:
        raise CorruptFile(f"{name} has the digest {found[:12]}..., not {recorded[:12]}...")
