"""Opens a path as a source of the right kind, determined by its content."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from models.data.importing.folders import FolderSource
from models.data.importing.names import shown
from models.data.importing.nested import archives_inside
from models.data.importing.options import ImportOptions
from models.data.importing.parquet import MAGIC, ParquetSource, parquet_inside
from models.data.importing.source import Source
from models.data.importing.tars import TarSource
from models.data.importing.zips import ZipSource
from models.errors import ArchiveError

ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
COMPRESSED: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]  # for reading bytes, which is how it is called
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
TAR_MAGIC_PLACE, TAR_MAGIC = 257, b"ustar"
OTHERS = ((b"Rar!", "a RAR archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"\x28\xb5\x2f\xfd", "compressed by Zstandard"))
UNPACKED = "unpacked"
"""Folder of what is copied out of an archive, while an import is made."""
FIX = "pack the images' folder as .zip, .tar or .tar.gz, and send that"


@contextmanager
def open_images(path: Path, work: Path, options: ImportOptions) -> Iterator[Source]:
    """Open a folder, a zip, a tar or parquet files (also inside one of the others), and list the names.

    What has to be copied out of an archive is kept in `work`/UNPACKED. Raises ArchiveError for anything else, with what
    it is.
    """
    with open_source(path, options) as outer:
        if outer.kind == ParquetSource.kind:
            yield outer
            return

        def open_archive(place: Path, name: str) -> AbstractContextManager[Source]:
            return open_source(place, options, name)

        packed = path.stat().st_size if path.is_file() else sum(entry.size for entry in outer.listing.entries)
        with archives_inside(outer, packed, work / UNPACKED / "archives", open_archive) as opened:
            inside = parquet_inside(opened, work / UNPACKED / "parquet", options.group_column)
            yield opened if inside is None else inside


def open_source(path: Path, options: ImportOptions, name: str | None = None) -> AbstractContextManager[Source]:
    """As `open_images`, without what is inside of an archive. Messages call it by `name`."""
    name = shown(name or path.name)
    if path.is_dir():
        return FolderSource(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ArchiveError(f"{name} cannot be read: {error.strerror}", fix=FIX) from error
    if start.startswith(ZIP):
        return ZipSource(path)
    if start.startswith(MAGIC):
        return ParquetSource([(path.name, path)], options.group_column)
    unpacked = _unpacked(path, start)
    if unpacked is None or unpacked[TAR_MAGIC_PLACE:].startswith(TAR_MAGIC) or _is_old_tar(unpacked):
        return TarSource(path)
    if unpacked is not start:
        raise ArchiveError(f"{name} is a compressed file, and what is compressed in it is no tar", fix=FIX)
    kind = next((kind for magic, kind in OTHERS if start.startswith(magic)), "neither a zip nor a tar")
    raise ArchiveError(f"{name} is {kind if start else 'empty'}", fix=FIX)


def _unpacked(path: Path, start: bytes) -> bytes | None:
    """The first bytes of what a compressed file holds, or its own `start`; None for a damaged one."""
    opened = next((opened for magic, opened in COMPRESSED.items() if start.startswith(magic)), None)
    if opened is None:
        return start
    try:
        with opened(path) as file:
            return file.read(512)
    except DAMAGED:
        return None


def _is_old_tar(start: bytes) -> bool:
    """Whether a header is that of a pre-POSIX tar, which has no magic number but a checksum in octal digits."""
    if len(start) < 512 or not start[0]:
        return False
    try:
        stated = int(start[148:156].rstrip(b"\0 ") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(start[:148]) + sum(start[156:512]) + 8 * ord(" ")
