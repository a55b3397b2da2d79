"""Files that are either whole or not there: written beside, flushed to the disk, then renamed."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from models.errors import CorruptFile, StorageFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
TEMPORARY_SUFFIX = ".partial"
LONGEST_NAME = 255
"""Bytes that file systems allow a name."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file open for binary writing that appears at `path` when the block ends well, and never otherwise.

    Readers see the old file or the new one. Raises StorageFull when the disk takes no more or cannot be written.
    """
    with placing(path) as temporary, temporary.open("w+b") as file:
        yield file
        file.flush()


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """As atomic_write, for writers that want a path: what the block leaves at the yielded path is moved to `path`."""
    # A name may have 255 bytes, so no more than a part of it goes into the temporary one.
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        if error.errno not in FULL:
            raise
        detail = f"{path.name} cannot be written: {os.strerror(error.errno)}"
        raise StorageFull(detail, fix="free some space, or make the data directory writable, and try again") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """A folder and those above it, if they are not there. Raises StorageFull, whatever is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFull(
            f"{folder} cannot be used as a folder: {error.strerror}", fix="name one that you can write to"
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def inside(folder: Path, name: str) -> Path:
    """Where the stored relative path `name` is below `folder`.

    Raises CorruptFile unless it is a plain path of names, and stays inside when symbolic links on the way are followed.
    """
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(os.fsencode(part)) <= LONGEST_NAME for part in parts)
    if not plain or "\\" in name or not name.isprintable():
        raise CorruptFile(f"the recorded path {name[:80]!r} is no path inside the data directory")
    path = folder.joinpath(*parts)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise CorruptFile(f"the recorded path {name[:80]!r} leads out of the data directory through a link")
    return path


def remove_leftovers(folder: Path) -> int:
    """Remove what killed writers left below a folder that nobody writes to now. Returns how many files.

    Links are not followed: not `folder` itself, and none below it.
    """
    found = [] if folder.is_symlink() else list(folder.rglob(f".*{TEMPORARY_SUFFIX}"))
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it; none there is as good. Of a link only the link goes."""
    with suppress(FileNotFoundError):
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)


def sha256_of(path: Path) -> str:
    """Digest of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(data: bytes) -> str:
    """Digest of contents that are in memory, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def verify(path: Path, sha256: str) -> None:
    """Raise CorruptFile unless the file is there and has this digest."""
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CorruptFile(f"{path.name} cannot be read: {error.strerror}") from error
    if found != sha256:
        raise CorruptFile(f"{path.name} has the digest {found[:12]}..., not {sha256[:12]}...")
