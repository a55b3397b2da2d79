"""Opens a path as a source of the right kind, determined by its content."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from models.data.importing.folders import FolderSource
from models.data.importing.options import ImportOptions
from models.data.importing.parquet import MAGIC, ParquetSource, parquet_inside
from models.data.importing.source import Source
from models.data.importing.tars import TarSource
from models.data.importing.zips import ZipSource
from models.errors import ArchiveError

ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
TAR_MAGIC_PLACE, TAR_MAGIC = 257, b"ustar"
OTHERS = ((b"Rar!", "a RAR archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"\x28\xb5\x2f\xfd", "compressed by Zstandard"))
FIX = "pack the images' folder as .zip, .tar or .tar.gz, and send that"


@contextmanager
def open_images(path: Path, work: Path, options: ImportOptions) -> Iterator[Source]:
    """Open a folder, a zip, a tar or parquet files (also inside one of the others), and list the names.

    Raises ArchiveError for anything else, with what it is.
    """
    with open_source(path, options) as opened:
        inside = parquet_inside(opened, work, options.group_column) if not opened.kind.startswith("parquet") else None
        yield opened if inside is None else inside


def open_source(path: Path, options: ImportOptions) -> AbstractContextManager[Source]:
    """As `open_images`, without looking for parquet files inside an archive."""
    if path.is_dir():
        return FolderSource(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ArchiveError(f"{path.name} cannot be read: {error.strerror}", fix=FIX) from error
    if start.startswith(ZIP):
        return ZipSource(path)
    if start.startswith(MAGIC):
        return ParquetSource([(path.name, path)], options.group_column)
    if start.startswith(COMPRESSED) or start[TAR_MAGIC_PLACE:].startswith(TAR_MAGIC) or _is_old_tar(start):
        return TarSource(path)
    kind = next((kind for magic, kind in OTHERS if start.startswith(magic)), "neither a zip nor a tar")
    raise ArchiveError(f"{path.name} is {kind if start else 'empty'}", fix=FIX)


def _is_old_tar(start: bytes) -> bool:
    """Whether a header is that of a pre-POSIX tar, which has no magic number but a checksum in octal digits."""
    if len(start) < 512 or not start[0]:
        return False
    try:
        stated = int(start[148:156].rstrip(b"\0 ") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(start[:148]) + sum(start[156:512]) + 8 * ord(" ")
