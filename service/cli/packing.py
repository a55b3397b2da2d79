"""Generates the bytes of a tar file of a folder while it is sent, starting at any offset, without writing a file.

The bytes are deterministic, so that the length is known in advance and an interrupted upload can be resumed.
"""

import bisect
import hashlib
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path

from models.data.importing.folders import FolderSource
from models.errors import EpochalError

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


class FolderChanged(EpochalError):
    """A file of the folder has changed since the upload began."""

    code = "folder-changed"
    title = "The folder has changed while it was sent"


class PackedFolder:
    """The files below a folder as a tar, in the order of their names. Hidden folders are left out, links refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filename = f"{folder.resolve().name}.tar"
        entries = FolderSource(folder).listing.entries
        self.files = [(entry.name, entry.size) for entry in sorted(entries, key=lambda one: one.name)]
        self._heads = [_head(name, size) for name, size in self.files]
        lengths = [len(head) + _padded(size) for head, (_, size) in zip(self._heads, self.files, strict=True)]
        self._starts = list(itertools.accumulate(lengths, initial=0))
        self.length = self._starts[-1] + len(END)

    @property
    def digest(self) -> str:
        """A digest of the files' names, sizes and modification times, which identifies the content."""
        found = hashlib.sha256()
        for name, size in self.files:
            moment = (self.folder / name).stat().st_mtime_ns
            found.update(f"{name}\0{size}\0{moment}\n".encode("utf-8", "surrogateescape"))
        return found.hexdigest()

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the tar from `start` on, at most `size`. Raises FolderChanged."""
        made = bytearray()
        for piece in self._from(start):
            made += piece
            if len(made) >= size:
                break
        return bytes(made[:size])

    def _from(self, start: int) -> Iterator[bytes]:
        place = max(0, bisect.bisect_right(self._starts, start) - 1)
        skip = start - self._starts[place]
        for number in range(place, len(self.files)):
            yield from self._member(number, skip)
            skip = 0
        yield END[skip:] if place == len(self.files) else END

    def _member(self, number: int, skip: int) -> Iterator[bytes]:
        head, (name, size) = self._heads[number], self.files[number]
        if skip < len(head):
            yield head[skip:]
        inside = max(0, skip - len(head))
        path = self.folder / name
        if inside < size:
            with path.open("rb") as file:
                file.seek(inside)
                left = size - inside
                while left and (piece := file.read(min(left, 1 << 20))):
                    left -= len(piece)
                    yield piece
                if left or file.read(1):
                    raise FolderChanged(f"{name} had {size:,} bytes and has another size now", fix="begin again")
        padding = _padded(size) - size
        yield bytes(padding - max(0, inside - size))


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
