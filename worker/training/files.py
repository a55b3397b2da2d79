"""Files that are either there and whole, or not there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from models.errors import StorageFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write to in the same folder, which becomes `path` if the block ends well.

    The file is on the disk before it is renamed, and the rename before this returns, so that a crash or a power cut
    leaves the old file or the new one. Raises StorageFull when the disk is full or cannot be written. Give it bytes:
    torch's and safetensors' own file writing reports a full disk by errors that cannot be told from other ones.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(
                f"{path.name} cannot be written: {error.strerror}",
                fix="make room on the disk of the data directory, or make it writable, then resume the experiment",
            ) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
