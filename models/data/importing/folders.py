"""The source for a local folder."""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Self

from models.data.importing import source as limits
from models.data.importing.names import parts_of, refusal, shown
from models.data.importing.source import MAX_IMAGE_BYTES, MAX_TEXT_BYTES, Entry, Listing, copy_file, too_many
from models.errors import ArchiveError


class FolderSource:
    """The files below a folder, ordered by name. Links are refused, hidden folders are skipped."""

    kind = "folder"
    class_names: tuple[str, ...] | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.listing = Listing()
        for root, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = Path(root).relative_to(folder)
            for name in (*folders, *sorted(files)):
                self._add(place / name, name in folders)

    def _add(self, place: Path, is_folder: bool) -> None:
        entries = self.listing.entries
        name = place.as_posix()
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise refusal(name, len(entries), self.kind, "has a name that is not UTF-8") from error
        parts_of(name, len(entries), self.kind)
        found = (self._folder / place).lstat()
        if stat.S_ISLNK(found.st_mode):
            raise refusal(name, len(entries), self.kind, "is a link", "copy what it points to into its place")
        if is_folder:
            self.listing.folders.add(name)
        elif stat.S_ISREG(found.st_mode):
            if len(entries) == limits.MAX_ENTRIES:
                raise too_many(self.kind)
            entries.append(Entry(name, found.st_size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def contents(self, wanted: Collection[int]) -> Iterator[tuple[int, bytes | ArchiveError]]:
        """See Source."""
        for number in sorted(wanted):
            try:
                yield number, self._read(number, MAX_IMAGE_BYTES)
            except ArchiveError as error:
                yield number, error

    def text(self, number: int) -> bytes:
        """See Source."""
        return self._read(number, MAX_TEXT_BYTES)

    def copy(self, wanted: Mapping[int, Path]) -> None:
        """See Source."""
        for number, path in wanted.items():
            entry = self.listing.entries[number]
            with self._open(entry.name) as file:
                copy_file(file, path, entry.name, entry.size)

    def _open(self, name: str) -> BinaryIO:
        # not followed if it has become a link since it was listed
        return open(os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW), "rb")

    def _read(self, number: int, most: int) -> bytes:
        name = self.listing.entries[number].name
        try:
            with self._open(name) as file:
                data = file.read(most + 1)
        except OSError as error:
            raise ArchiveError(f"'{shown(name)}' cannot be read: {error.strerror}", file=shown(name)) from error
        if len(data) > most:
            raise ArchiveError(f"'{shown(name)}' has more than {most:,} bytes", file=shown(name))
        return data
